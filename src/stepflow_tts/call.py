"""One call to speak: its text becomes parts, and its parts become pieces of speech."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from stepflow_tts.errors import OptionError, TextError
from stepflow_tts.hub import Checkpoint
from stepflow_tts.models.acoustic import VoiceContext
from stepflow_tts.options import Options, check_rate
from stepflow_tts.speech import Speech
from stepflow_tts.synthesis import Draft, Take, draft_part, flow_of, piece_of, take_of
from stepflow_tts.text.incremental import Planner
from stepflow_tts.text.lexicon import Lexicon
from stepflow_tts.text.plan import Part, chunks, plan
from stepflow_tts.text.split import Chunk
from stepflow_tts.text.tokenizer import Tokenizer

MAX_CHARACTERS = 100_000  # about two hours of speech, 700 MB of samples


@dataclass(frozen=True, slots=True)
class Call:
    """What all parts of a call share."""

    checkpoint: Checkpoint
    tokenizer: Tokenizer
    lexicon: Lexicon | None
    voice: VoiceContext
    language: str
    options: Options

    def parts(self, text: str) -> list[Part]:
        """The parts of a whole text that have something to say; they depend on text and options.

        Raises:
            TextError: nothing in the text can be spoken, it is too long, or bad SSML.
            OptionError: a rate of the SSML does not fit the speed.
        """
        if isinstance(text, str) and len(text) > MAX_CHARACTERS:
            raise TextError(
                f"The text has {len(text)} characters; {MAX_CHARACTERS} are allowed in one call. "
                "Synthesize it in parts, such as chapters, or stream an iterable of them."
            )
        parts = [part for part in self._plan(text, True) if part.speaks]
        if not parts:
            raise TextError(
                f"Nothing in the text {text[:40]!r} is spoken. Give at least one word in English."
            )
        for part in parts:
            check_rate(part.rate, self.options.speed)
        return parts

    def planner(self) -> Planner[Part]:
        """Takes a text in parts.

        Raises:
            OptionError: the call is for SSML, which has to be whole to be read.
        """
        if self.options.markup != "plain":
            raise OptionError(
                f"markup is {self.options.markup!r}; a text that comes in parts can only be "
                "'plain'. Join its parts first."
            )
        return Planner(self._chunks, self._plan)

    def settled(self, texts: Iterable[str]) -> Iterator[Part]:
        """The parts of a text that comes in parts, each as soon as it is settled.

        Raises:
            TextError: something is no text, or there was nothing to speak.
            OptionError: as `planner`; at once, not when the first part is asked for.
        """
        return _settled(self.planner(), texts)

    async def aparts(self, text: str | AsyncIterable[str]) -> AsyncIterator[Part]:
        """The parts of a text, whole or in parts that come asynchronously, each when it is settled.

        Raises:
            StepFlowError: as `parts` or `settled`.
        """
        if isinstance(text, str) or not isinstance(text, AsyncIterable):
            for part in await asyncio.to_thread(self.parts, text):
                yield part
            return
        planner = self.planner()
        async for more in text:
            for part in await asyncio.to_thread(planner.feed, more):
                yield part
        for part in await asyncio.to_thread(planner.finish):
            yield part

    def draft(self, part: Part, index: int) -> Draft:
        """What the flow of a part starts from; `index` is its place among those that speak."""
        c = self.checkpoint
        return draft_part(c.config, c.model, part, self.voice, self.options, index)

    def take(self, draft: Draft, index: int) -> Take:
        """A draft, spoken.

        Raises:
            SynthesisError: the model's output is not speech.
        """
        c = self.checkpoint
        (x,) = flow_of(c.model, [draft], self.voice, self.options)
        return take_of(c.config, c.vocoder, draft, x, index)

    def pieces(self, parts: Iterable[Part]) -> Iterator[Speech]:
        """Each part as soon as it is made; those that say nothing are left out."""
        speaker = Speaker(self)
        for part in parts:
            yield from speaker.say(part)
        yield from speaker.finish()

    def _plan(self, text: str, first: bool) -> list[Part]:
        options = self.options
        return plan(
            text,
            self.language,
            self.tokenizer,
            markup=options.markup,
            lexicon=self.lexicon,
            pause_seconds=options.pause_seconds,
            first=first,
        )

    def _chunks(self, text: str, first: bool) -> list[Chunk]:
        return chunks(text, self.language, lexicon=self.lexicon, first=first)


def _settled(planner: Planner[Part], texts: Iterable[str]) -> Iterator[Part]:
    for text in texts:
        yield from planner.feed(text)
    yield from planner.finish()


class Speaker:
    """Speaks the parts of a call one after the other. The pause after a part begins the next piece."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._index, self._pause = 0, 0.0
        self._last: Part | None = None

    def say(self, part: Part, take: Take | None = None) -> list[Speech]:
        """The piece of the next part, none if there is nothing to say in it.

        Args:
            part: of the plan.
            take: what it became, if it has been spoken already.

        Raises:
            SynthesisError: the model's output is not speech.
        """
        if not part.speaks:
            return []
        call = self._call
        if take is None:
            take = call.take(call.draft(part, self._index), self._index)
        mel = call.checkpoint.config.mel
        piece, self._pause = piece_of(part, take, call.options, mel, self._pause)
        self._index, self._last = self._index + 1, part
        return [piece]

    def finish(self) -> list[Speech]:
        """The silence that an SSML text asks for at its end, none in most cases."""
        rate = self._call.checkpoint.config.mel.sample_rate
        num_samples = round(self._pause * rate)
        if self._last is None or not self._last.always_pause or not num_samples:
            return []
        silence = np.zeros(num_samples, np.float32)
        return [Speech(silence, rate, self._call.options.seed)]

"""The events of Wyoming: what is read out of them, and what is put into them."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import numpy as np
from wyoming.event import Event, Eventable
from wyoming.info import Attribution, Describe, Info, TtsProgram, TtsVoice
from wyoming.ping import Ping
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeVoice,
)

from stepflow_tts import __version__
from stepflow_tts.errors import OptionError, TextError
from stepflow_tts.speech import Speech
from stepflow_tts.text.phonemize import resolve_language
from stepflow_tts.voice import Voice

MAX_CHARACTERS = 20_000  # of a request: about 20 minutes of speech
MAX_EVENT_BYTES = 12 * MAX_CHARACTERS + 16_384  # JSON escapes a character with 12 bytes at most
CHUNK_SECONDS = 0.2  # of audio in an event
OWN = Attribution(name="stepflow-tts", url="https://pypi.org/project/stepflow-tts/")
KINDS: tuple[type[Eventable], ...] = (
    *(Describe, Ping),
    *(Synthesize, SynthesizeStart, SynthesizeChunk, SynthesizeStop),
)


class ArrivingText:
    """A text that comes in parts, cut anywhere."""

    def __init__(self) -> None:
        self.is_over = asyncio.Event()
        self._changed = asyncio.Event()
        self._waiting = ""
        self._length = 0

    def add(self, part: str) -> None:
        """Take the next part; what is too much is not kept."""
        self._length += len(part)
        if self._length <= MAX_CHARACTERS:
            self._waiting += part
        self._changed.set()

    def end(self) -> None:
        """Take no more."""
        self.is_over.set()
        self._changed.set()

    async def parts(self) -> AsyncIterator[str]:
        """All that has come since the last part, as soon as there is some.

        Raises:
            TextError: it is too long.
        """
        while self._waiting or not self.is_over.is_set():
            await self._changed.wait()
            self._changed.clear()
            check_length(self._length)
            part, self._waiting = self._waiting, ""
            if part:
                yield part


def parse(event: Event) -> Eventable | None:
    """An event as one of our kinds; None for all other kinds.

    Raises:
        TextError: its fields are not those of its kind.
    """
    for kind in KINDS:
        if not kind.is_type(event.type):
            continue
        try:
            found = kind.from_event(event)
        except (KeyError, TypeError, AttributeError) as error:
            raise TextError(
                f"The event {event.type!r} lacks a field, or has a wrong one."
            ) from error
        text = getattr(found, "text", "")
        if text is None and isinstance(found, Ping):
            text = ""
        if not isinstance(text, str) or any("\ud800" <= c <= "\udfff" for c in text):
            raise TextError(f"The text of the event {event.type!r} must be a string of characters.")
        return found
    return None


def check_length(num_characters: int) -> None:
    """Nothing, for a text that is short enough.

    Raises:
        TextError: it is not.
    """
    if num_characters > MAX_CHARACTERS:
        raise TextError(
            f"The text has more than {MAX_CHARACTERS} characters. Send it in several requests."
        )


def choose_voice(voices: Mapping[str, Voice], wanted: SynthesizeVoice | None) -> Voice:
    """The voice that a client wants: by name, or by language, or the first.

    A name is only ever looked up, never taken for a path.

    Raises:
        OptionError: there is none like that.
    """
    first = next(iter(voices.values()))
    if wanted is None:
        return first
    if wanted.speaker is not None:
        raise OptionError(f"The voices have no speakers, so no {str(wanted.speaker)[:40]!r}.")
    if wanted.name is not None:
        found = voices.get(str(wanted.name))
        if found is None:
            raise OptionError(
                f"There is no voice {str(wanted.name)[:40]!r}. Choose one of: {', '.join(voices)}."
            )
        return found
    if wanted.language is None:
        return first
    language = resolve_language(wanted.language)
    for voice in voices.values():
        if resolve_language(voice.language) == language:
            return voice
    raise OptionError(f"There is no voice of the language {language!r}.")


def describe(voices: Mapping[str, Voice]) -> Info:
    """What there is to choose from."""
    listed = [
        TtsVoice(
            name=name,
            attribution=OWN,
            installed=True,
            description=f"{voice.name}: {voice.description}" if voice.description else voice.name,
            version=__version__,
            languages=[_region_in_capitals(voice.language)],
        )
        for name, voice in voices.items()
    ]
    program = TtsProgram(
        name="stepflow-tts",
        attribution=OWN,
        installed=True,
        description="Text to speech in one network evaluation",
        version=__version__,
        voices=listed,
        supports_synthesize_streaming=True,
    )
    return Info(tts=[program])


def pcm_chunks(piece: Speech) -> list[bytes]:
    """16 bit little-endian samples, cut into what an event carries."""
    # Rounded as libsndfile does, so that this is the data of a file that was saved.
    data: bytes = np.rint(piece.samples.clip(-1.0, 1.0) * 32_767).astype("<i2").tobytes()
    step = 2 * round(CHUNK_SECONDS * piece.sample_rate)
    return [data[start : start + step] for start in range(0, len(data), step)]


def _region_in_capitals(tag: str) -> str:
    """A tag as Home Assistant has them: en-US."""
    language, *rest = tag.replace("_", "-").split("-")
    return "-".join([language.lower(), *(part.upper() for part in rest)])

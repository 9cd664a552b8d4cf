"""StepFlowTTS: text and a voice to speech."""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Unpack

import torch

from stepflow_tts.audio.reference import Clips
from stepflow_tts.batches import speak_together
from stepflow_tts.call import Call, Speaker
from stepflow_tts.config import CheckpointConfig
from stepflow_tts.errors import OptionError, StepFlowError, SynthesisError
from stepflow_tts.hub import Checkpoint, load_checkpoint, resolve, save_checkpoint
from stepflow_tts.model_card import model_card
from stepflow_tts.options import (
    CallOptions,
    check_device,
    check_language,
    check_options,
    default_device,
)
from stepflow_tts.speech import Speech
from stepflow_tts.text.lexicon import Lexicon, LexiconSource
from stepflow_tts.text.plan import Markup
from stepflow_tts.text.split import Pause
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.voice import Voice
from stepflow_tts.voices import Voices, VoiceSource


class StepFlowTTS:
    """A text-to-speech model with its vocoder and voices.

    Calls change nothing that another call can hear: threads may share one instance.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str | torch.device | None = None,
        lexicon: LexiconSource | None = None,
    ) -> None:
        """Take the parts of a loaded checkpoint; `from_pretrained` finds and loads one."""
        self._loaded: tuple[Checkpoint, Voices] | None = (checkpoint, Voices(checkpoint))
        self._process = os.getpid()
        self._tokenizer = Tokenizer(checkpoint.config.symbols)
        self._lexicon = None if lexicon is None else Lexicon(lexicon, self._tokenizer.symbols)
        self.to(default_device() if device is None else device)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        lexicon: LexiconSource | None = None,
    ) -> "StepFlowTTS":
        """The model of a checkpoint, ready to speak.

        Args:
            source: None for the checkpoint in this package, a folder, or a Hub id as "org/name".
            device: "cpu", "cuda", "cuda:1" or "mps"; None takes CUDA if there is any, else the CPU.
            revision: branch, tag or commit on the Hub.
            token: the Hub's access token; None takes the one of `hf auth login`.
            cache_dir: where downloads are kept.
            local_files_only: True never touches the network.
            lexicon: how words are said that it gets wrong: a mapping such as
                {"nginx": "engine x", "Nguyen": "/wˈɪn/"}, or a file of such lines with a tab
                between the two; a word in small letters is found in any case.

        Raises:
            CheckpointNotFoundError: there is none at `source`.
            CheckpointFormatError: it is damaged, or not of this version.
            DownloadError: the Hub could not be reached, or refused.
            OptionError: the device does not exist, a revision without the Hub, or a bad lexicon.
        """
        device = default_device() if device is None else check_device(device)
        folder = resolve(
            source,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        return cls(load_checkpoint(folder), device=device, lexicon=lexicon)

    @property
    def config(self) -> CheckpointConfig:
        """The checkpoint's settings."""
        return self._checkpoint.config

    @property
    def sample_rate(self) -> int:
        """Of all speech, in Hz."""
        return self.config.mel.sample_rate

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self._checkpoint.model.parameters()).device

    @property
    def voices(self) -> Mapping[str, Voice]:
        """The checkpoint's own voices by name, in order; the first is the default."""
        return MappingProxyType(self._checkpoint.voices)

    def to(self, device: str | torch.device) -> "StepFlowTTS":
        """Itself, moved to a device; not while another thread synthesizes.

        Raises:
            OptionError: the device does not exist here.
        """
        device = check_device(device)
        c = self._checkpoint
        self._voices.forget_contexts()
        c.model.to(device)
        if c.vocoder is not None:
            c.vocoder.to(device)
        return self

    def close(self) -> None:
        """Let go of the networks; whatever is asked afterwards is refused. `with` does this too."""
        self._loaded = None

    def __enter__(self) -> "StepFlowTTS":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def encode_voice(
        self,
        audio: Clips,
        sample_rate: int | None = None,
        *,
        name: str = "voice",
        language: str = "en-us",
    ) -> Voice:
        """The voice in a recording of 1 s or more, 3 to 8 s being best; no transcript is needed.

        Args:
            audio: path, bytes or binary file object of an audio file; or an array or tensor; or a
                list of up to 8 of those, of one speaker.
            sample_rate: in Hz; required for an array or tensor.
            name: how lists and messages call it.
            language: BCP 47 tag of what it speaks by default.

        Raises:
            AudioError: audio that is missing, unreadable, silent or shorter than 1 s.
            OptionError: a language that is not spoken.
        """
        check_language(self.config, language)
        mel = self.config.mel
        return Voice.from_audio(audio, sample_rate, mel=mel, name=name, language=language)

    def synthesize(
        self,
        text: str,
        voice: VoiceSource = None,
        *,
        num_steps: int = 1,
        cfg_strength: float = 0.0,
        speed: float = 1.0,
        seed: int | None = 0,
        language: str | None = None,
        pause_seconds: Mapping[Pause, float] | None = None,
        markup: Markup = "plain",
    ) -> Speech:
        """The text, spoken in the voice.

        Args:
            text: what to say, at most 100 000 characters; a line break ends a sentence.
            voice: a `Voice`, one of `voices` by name, a recording's path, bytes or file object, or
                (array, sample_rate); None for the first of `voices`.
            num_steps: network evaluations; a student knows those of its config, most often 1, 2
                and 4, a teacher any number, of which 10 is usual.
            cfg_strength: of guidance, 0 or more; above 0 doubles the evaluations.
            speed: 0.5 to 2.0; 2.0 is twice as fast.
            seed: 0 or more; the same call with the same seed gives the same samples. None draws one.
            language: BCP 47 tag; None for the voice's.
            pause_seconds: how long one hears nothing after a "clause" (comma, colon), "sentence",
                "line" or "paragraph", 0 to 5 s at any speed; those not named are as they come.
            markup: "plain" interprets nothing in the text; "ssml" is the part of SSML that
                `stepflow_tts.text.ssml` lists.

        Returns:
            Samples, and words and phonemes with their times.

        Raises:
            TextError: nothing in the text can be spoken, it is too long, or bad SSML.
            AudioError: the reference recording cannot be used.
            OptionError: another argument is out of its range.
            SynthesisError: the model's output is not speech.
        """
        call = self._call(
            voice, num_steps, cfg_strength, speed, seed, language, pause_seconds, markup
        )
        return Speech.join(call.pieces(call.parts(text)), text)

    def stream(
        self,
        text: str | Iterable[str],
        voice: VoiceSource = None,
        *,
        num_steps: int = 1,
        cfg_strength: float = 0.0,
        speed: float = 1.0,
        seed: int | None = 0,
        language: str | None = None,
        pause_seconds: Mapping[Pause, float] | None = None,
        markup: Markup = "plain",
    ) -> Iterator[Speech]:
        """The speech of `synthesize` piece by piece, each as soon as it is made.

        Joined, the pieces are what `synthesize` gives for the same arguments, sample by sample. Each
        is a sentence or part of one, after the pause that belongs before it. All input is checked
        before the iterator is returned; only a SynthesisError can come later.

        `text` may come in parts, cut anywhere, such as the tokens of a language model: each sentence
        is spoken when no later part can change it. Then a TextError can come later too.
        """
        call = self._call(
            voice, num_steps, cfg_strength, speed, seed, language, pause_seconds, markup
        )
        if isinstance(text, str | bytes) or not isinstance(text, Iterable):
            return call.pieces(call.parts(text))  # which refuses what is no text
        return call.pieces(call.settled(text))

    async def astream(
        self,
        text: str | AsyncIterable[str],
        voice: VoiceSource = None,
        **options: Unpack[CallOptions],
    ) -> AsyncIterator[Speech]:
        """`stream` for `async for`: synthesis runs in a worker thread.

        Args:
            text: whole, or in parts that come asynchronously.
            voice: as in `synthesize`.
            options: as in `synthesize`.

        Raises:
            StepFlowError: as `stream`, when the first piece is asked for or later.
        """
        call = await asyncio.to_thread(self._call, voice, **options)
        speaker = Speaker(call)
        async for part in call.aparts(text):
            for piece in await asyncio.to_thread(speaker.say, part):
                yield piece
        for piece in speaker.finish():
            yield piece

    def synthesize_batch(
        self,
        texts: Sequence[str],
        voices: VoiceSource | list[VoiceSource] = None,
        *,
        batch_seconds: float = 60.0,
        **options: Unpack[CallOptions],
    ) -> list[Speech | StepFlowError]:
        """Each text's speech, or the error that it met, in the order of the texts.

        Sentences of like length and one voice go through the network together, the longest first:
        faster than call after call on a GPU. Lengths are those of single calls, and so is the
        sound, to within rounding.

        Args:
            texts: what to say.
            voices: one for all, as in `synthesize`, or a list of one for each text.
            batch_seconds: speech in a batch at most; more needs more memory.
            options: as in `synthesize`; every text gets the same.

        Raises:
            OptionError: there are not as many voices as texts, or, with one voice for all, an option
                is out of its range.
            AudioError: the one voice for all cannot be used.
        """
        if not 0 < batch_seconds < float("inf"):
            raise OptionError(f"batch_seconds is {batch_seconds}; it must be above 0.")
        if isinstance(texts, str):
            raise OptionError("texts is one string; give a list of them, or use synthesize.")
        if not isinstance(voices, list):
            call = self._call(voices, **options)
            return speak_together([lambda: call] * len(texts), texts, batch_seconds)
        if len(voices) != len(texts):
            raise OptionError(f"There are {len(texts)} texts and {len(voices)} voices.")
        calls = [partial(self._call, voice, **options) for voice in voices]
        return speak_together(calls, texts, batch_seconds)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """The folder, which now holds this checkpoint with a model card, ready for the Hub.

        Raises:
            OptionError: the folder holds other things.
        """
        c = self._checkpoint
        card = c.card or model_card(c.config, c.model, list(c.voices))
        save_checkpoint(folder, c.config, c.model, c.vocoder, c.voices, card=card)
        return Path(folder)

    @property
    def _checkpoint(self) -> Checkpoint:
        return self._usable()[0]

    @property
    def _voices(self) -> Voices:
        return self._usable()[1]

    def _usable(self) -> tuple[Checkpoint, Voices]:
        """The networks, where they can be used."""
        if os.getpid() != self._process:
            raise SynthesisError(
                "This StepFlowTTS was loaded before a fork; PyTorch can hang in the child. Load it "
                'in the child, or start processes with multiprocessing.get_context("spawn").'
            )
        if self._loaded is None:
            raise SynthesisError("This StepFlowTTS is closed. Load another by from_pretrained.")
        return self._loaded

    def _call(
        self,
        voice: VoiceSource,
        num_steps: int = 1,
        cfg_strength: float = 0.0,
        speed: float = 1.0,
        seed: int | None = 0,
        language: str | None = None,
        pause_seconds: Mapping[Pause, float] | None = None,
        markup: Markup = "plain",
    ) -> Call:
        """All that the parts of a call share, checked."""
        options = check_options(
            self.config, num_steps, cfg_strength, speed, seed, pause_seconds, markup
        )
        chosen = self._voices.find(voice)
        spoken = check_language(self.config, chosen.language if language is None else language)
        context = self._voices.context(chosen)
        return Call(self._checkpoint, self._tokenizer, self._lexicon, context, spoken, options)

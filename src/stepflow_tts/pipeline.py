"""StepFlowTTS: text and a voice to speech."""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stepflow_tts.audio.io import AudioSource
from stepflow_tts.audio.mel import to_flow
from stepflow_tts.config import CheckpointConfig
from stepflow_tts.errors import AudioError, OptionError, TextError
from stepflow_tts.hub import Checkpoint, load_checkpoint, resolve, save_checkpoint
from stepflow_tts.model_card import model_card
from stepflow_tts.models.acoustic import VoiceContext
from stepflow_tts.options import (
    Options,
    check_device,
    check_options,
    check_rate,
    default_device,
)
from stepflow_tts.speech import Speech
from stepflow_tts.synthesis import speak
from stepflow_tts.text.lexicon import Lexicon, LexiconSource
from stepflow_tts.text.phonemize import resolve_language
from stepflow_tts.text.plan import Markup, Part, plan
from stepflow_tts.text.split import Pause
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.voice import Voice

VoiceSource: TypeAlias = (
    Voice | str | os.PathLike[str] | bytes | BinaryIO | tuple[npt.NDArray[Any] | Tensor, int] | None
)
"""A `Voice`, the name of one of the checkpoint's, or a reference recording: a path, an encoded file's
bytes, a binary file object, or an array or tensor with its sample rate. None is the first voice."""

MAX_CHARACTERS = 100_000  # about two hours of speech, 700 MB of samples
MAX_CONTEXTS = 8  # kept voices; one of 8 s takes 6 MB with `nano`, 35 MB with `base`


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
        self._checkpoint = checkpoint
        self._tokenizer = Tokenizer(checkpoint.config.symbols)
        self._lexicon = None if lexicon is None else Lexicon(lexicon, self._tokenizer.symbols)
        self._lock = threading.Lock()
        self._contexts: OrderedDict[str, VoiceContext] = OrderedDict()
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
        with self._lock:
            self._contexts.clear()
            self._checkpoint.model.to(device)
            if self._checkpoint.vocoder is not None:
                self._checkpoint.vocoder.to(device)
        return self

    def encode_voice(
        self,
        audio: AudioSource,
        sample_rate: int | None = None,
        *,
        name: str = "voice",
        language: str = "en-us",
    ) -> Voice:
        """The voice in a recording of 1 s or more, 3 to 8 s being best; no transcript is needed.

        Args:
            audio: path, bytes or binary file object of an audio file; or an array or tensor.
            sample_rate: in Hz; required for an array or tensor.
            name: how lists and messages call it.
            language: BCP 47 tag of what it speaks by default.

        Raises:
            AudioError: audio that is missing, unreadable, silent or shorter than 1 s.
            OptionError: a language that is not spoken.
        """
        self._language(language)
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
        options = check_options(
            self.config, num_steps, cfg_strength, speed, seed, pause_seconds, markup
        )
        return Speech.join(self._stream(text, voice, options, language), text)

    def stream(
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
    ) -> Iterator[Speech]:
        """The speech of `synthesize` piece by piece, each as soon as it is made.

        Joined, the pieces are what `synthesize` gives for the same arguments, sample by sample. Each
        is a sentence or part of one, with the pause that follows it. All input is checked before
        the iterator is returned; only a SynthesisError can come later.
        """
        options = check_options(
            self.config, num_steps, cfg_strength, speed, seed, pause_seconds, markup
        )
        return self._stream(text, voice, options, language)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """The folder, which now holds this checkpoint with a model card, ready for the Hub.

        Raises:
            OptionError: the folder holds other things.
        """
        c = self._checkpoint
        card = c.card or model_card(c.config, c.model, list(c.voices))
        save_checkpoint(folder, c.config, c.model, c.vocoder, c.voices, card=card)
        return Path(folder)

    def _stream(
        self, text: str, voice: VoiceSource, options: Options, language: str | None
    ) -> Iterator[Speech]:
        """Check and plan at once, then make part after part."""
        chosen = self._voice(voice)
        spoken = self._language(chosen.language if language is None else language)
        parts = self._plan(text, spoken, options)
        context = self._context(chosen)
        return self._speak(parts, context, options)

    def _plan(self, text: str, language: str, options: Options) -> list[Part]:
        """The parts that have something to say; they depend on text and options alone."""
        if isinstance(text, str) and len(text) > MAX_CHARACTERS:
            raise TextError(
                f"The text has {len(text)} characters; {MAX_CHARACTERS} are allowed in one call. "
                "Synthesize it in parts, such as chapters."
            )
        parts = plan(
            text,
            language,
            self._tokenizer,
            markup=options.markup,
            lexicon=self._lexicon,
            pause_seconds=options.pause_seconds,
        )
        parts = [part for part in parts if part.speaks]
        if not parts:
            raise TextError(
                f"Nothing in the text {text[:40]!r} is spoken. Give at least one word in English."
            )
        for part in parts:
            check_rate(part.rate, options.speed)
        return parts

    def _speak(
        self, parts: list[Part], context: VoiceContext, options: Options
    ) -> Iterator[Speech]:
        """Each part, with the pause after it; none after the last."""
        c = self._checkpoint
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            yield speak(c.config, c.model, c.vocoder, part, context, options, i, last=last)

    def _voice(self, source: VoiceSource) -> Voice:
        """The voice that `source` means."""
        voices = self._checkpoint.voices
        if source is None:
            if not voices:
                raise OptionError(
                    "This checkpoint has no voices: pass voice=, such as a recording."
                )
            return next(iter(voices.values()))
        if isinstance(source, Voice):
            return source
        if isinstance(source, str) and source in voices:
            return voices[source]
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            if path.suffix.lower() == ".safetensors" and path.is_file():
                return Voice.load(path)
            if not path.suffix and not os.path.exists(path):
                raise OptionError(
                    f"There is no voice {str(path)!r}. Choose one of: {', '.join(voices) or 'none'}; "
                    "or pass the path of a recording."
                )
        if isinstance(source, tuple):
            if len(source) != 2:
                raise AudioError(f"voice=(array, sample_rate) has 2 parts, not {len(source)}.")
            return self.encode_voice(*source)
        if isinstance(source, np.ndarray | Tensor):
            raise AudioError("An array has no sample rate: pass voice=(array, sample_rate).")
        return self.encode_voice(source)

    def _context(self, voice: Voice) -> VoiceContext:
        """What the voice adds to the network, computed once a voice."""
        mel = self.config.mel
        if voice.mel != mel:
            raise OptionError(
                f"The voice {voice.name!r} was made for {voice.mel}, this checkpoint needs {mel}: "
                "encode its recording with this checkpoint's encode_voice."
            )
        key = voice.digest
        with self._lock:
            if key in self._contexts:
                self._contexts.move_to_end(key)
                return self._contexts[key]
        with torch.inference_mode():
            features = to_flow(voice.log_mel[None], self.config.flow).to(self.device)  # (1, T, M)
            context = self._checkpoint.model.encode_voice(features)
        with self._lock:
            self._contexts[key] = context
            while len(self._contexts) > MAX_CONTEXTS:
                self._contexts.popitem(last=False)
        return context

    def _language(self, tag: str) -> str:
        """The language that a tag means, if this checkpoint speaks it."""
        language = resolve_language(tag)
        if language not in self.config.languages:
            raise OptionError(
                f"This checkpoint does not speak {language!r}. "
                f"Choose one of: {', '.join(self.config.languages)}."
            )
        return language

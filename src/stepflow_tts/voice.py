"""Voice: what a reference recording became, and its file."""

import hashlib
import json
import os
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from stepflow_tts.audio.mel import log_mel
from stepflow_tts.audio.reference import Clips, load_reference
from stepflow_tts.audio.sources import snapshot
from stepflow_tts.config import MelConfig, from_dict, to_dict
from stepflow_tts.errors import (
    AudioError,
    CheckpointFormatError,
    CheckpointNotFoundError,
    OptionError,
)
from stepflow_tts.files import write_atomic

VOICE_FORMAT_VERSION = 1
MAX_SECONDS = 8.0
MAX_TEXT_LENGTH = 100  # characters of name, language, description: 150 kB with 7.9 s of mels
MAX_FILE_BYTES = 1_000_000  # far above any voice: a larger file is something else


@dataclass(frozen=True, slots=True, eq=False)
class Voice:
    """A voice to speak in. It outlives the checkpoint that it was made with.

    Attributes:
        log_mel: (T, M) float32, natural log, at most 8 s; rounded to float16's precision, so that a
            saved voice speaks exactly as before. Do not write to it.
        mel: frame and filter sizes of `log_mel`.
        name: how lists and messages call it.
        language: BCP 47 tag of the language it was recorded in.
        description: free text.

    Raises:
        AudioError: a wrong shape, too long, or values that are not finite.
        OptionError: a name, language or description that is empty or too long.
    """

    log_mel: Tensor = field(repr=False)
    mel: MelConfig
    name: str = "voice"
    language: str = "en-us"
    description: str = ""

    def __post_init__(self) -> None:
        for key, text in (("name", self.name), ("language", self.language)):
            if not text.strip():
                raise OptionError(f"A voice's {key} must not be empty.")
        for text in (self.name, self.language, self.description):
            if len(text) > MAX_TEXT_LENGTH:
                raise OptionError(
                    f"{text[:20]!r}... has {len(text)} characters; allowed are {MAX_TEXT_LENGTH}."
                )
        shape = tuple(self.log_mel.shape)
        max_frames = 1 + int(MAX_SECONDS * self.mel.frame_rate)
        if len(shape) != 2 or shape[1] != self.mel.n_mels or not 1 <= shape[0] <= max_frames:
            raise AudioError(
                f"A voice's log-mel has the shape {shape}; it must be (1 to {max_frames}, "
                f"{self.mel.n_mels}). Make it with Voice.from_audio."
            )
        with torch.inference_mode(False):
            rounded = self.log_mel.detach().to("cpu", torch.float16, copy=True).float()
        if not torch.isfinite(rounded).all():
            raise AudioError(
                "A voice's log-mel holds values that are not finite. Make it with Voice.from_audio."
            )
        object.__setattr__(self, "log_mel", rounded)

    @classmethod
    def from_audio(
        cls,
        source: Clips,
        sample_rate: int | None = None,
        *,
        mel: MelConfig | None = None,
        name: str = "voice",
        language: str = "en-us",
        description: str = "",
    ) -> "Voice":
        """The voice in a recording of 1 s or more, of which the first 7.9 s of speech are used.

        Several clips of one speaker share the 7.9 s equally; what a short one leaves is shared by
        the others. Each is set to the same level, and they are joined in their order.

        Args:
            source: path, bytes or binary file object of an audio file; or an array or tensor; or a
                list or tuple of up to 8 of those.
            sample_rate: in Hz; required for an array or tensor. In a list it is that of all of its
                arrays and tensors; files carry their own.
            mel: frame and filter sizes; by default those of every bundled checkpoint.
            name: how lists and messages call it.
            language: BCP 47 tag.
            description: free text.

        Raises:
            AudioError: audio that is missing, unreadable, silent or in all shorter than 1 s.
            OptionError: a name, language or description that is empty or too long.
        """
        mel = mel or MelConfig()
        waveform = load_reference(source, sample_rate, target_rate=mel.sample_rate)  # (S,)
        with torch.no_grad():
            features = log_mel(waveform[None], mel)[0]  # (T, M)
        return cls(features, mel, name, language, description)

    @property
    def digest(self) -> str:
        """Hexadecimal hash of what the networks see: equal for voices that sound the same."""
        content = json.dumps(to_dict(self.mel), sort_keys=True).encode()
        content += self.log_mel.numpy().tobytes()
        return hashlib.sha256(content).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """The path of the .safetensors file it was saved to: under 150 kB, whole or not at all.

        Raises:
            OptionError: the extension is not .safetensors, or the folder does not exist.
        """
        if Path(path).suffix.lower() != ".safetensors":
            raise OptionError(f"Cannot save a voice as {str(path)!r}: name it .safetensors.")
        metadata = {
            "format": "stepflow-tts voice",
            "format_version": str(VOICE_FORMAT_VERSION),
            "mel": json.dumps(to_dict(self.mel)),
            "name": self.name,
            "language": self.language,
            "description": self.description,
            "digest": self.digest,
        }
        tensors = {"log_mel": self.log_mel.to(torch.float16)}
        return write_atomic(path, safetensors.torch.save(tensors, metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Voice":
        """The voice in a file that `save` wrote.

        Raises:
            CheckpointNotFoundError: there is no such file.
            CheckpointFormatError: it is not a voice, damaged, or of a format that is not read here.
        """
        path = Path(path)
        if not path.is_file():
            raise CheckpointNotFoundError(f"There is no voice file {path}. Check the path.")
        with open(path, "rb") as file:
            head = file.read(16)
        # Every safetensors file has "{" here; its first byte, of a length, may be a pickle's too.
        if head[:1] in (b"P", b"\x80") and head[8:9] != b"{":
            raise CheckpointFormatError(
                f"{path} is a pickle, whatever its name; pickles can run code and are not read. "
                "Make the voice again with Voice.from_audio(...).save(...)."
            )
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CheckpointFormatError(
                f"{path} has {path.stat().st_size} bytes; a voice has less than 150 000. "
                "Recordings are read by Voice.from_audio."
            )
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise CheckpointFormatError(
                f"{path} is damaged or no safetensors file ({error}). Save the voice again; "
                "recordings are read by Voice.from_audio."
            ) from error
        return _parse(path, metadata, tensors)


class VoiceCache:
    """Encodes recordings, and remembers the voices of the last ones by what they hold.

    A file that was changed is encoded anew, whatever its name and time; the same content is not,
    wherever it comes from. Threads may share one.
    """

    def __init__(self, max_voices: int = 32) -> None:
        """Keep at most `max_voices`; one takes 300 kB at most."""
        self._max_voices = max_voices
        self._lock = threading.Lock()
        self._voices: OrderedDict[object, Voice] = OrderedDict()

    def __len__(self) -> int:
        return len(self._voices)

    def from_audio(
        self,
        source: Clips,
        sample_rate: int | None = None,
        *,
        mel: MelConfig | None = None,
        name: str = "voice",
        language: str = "en-us",
        description: str = "",
    ) -> Voice:
        """As `Voice.from_audio`; the same `Voice` for the same content and arguments.

        Raises:
            AudioError: as `Voice.from_audio`. Nothing is remembered of audio that is refused.
            OptionError: as `Voice.from_audio`.
        """
        several = isinstance(source, list | tuple)
        sources = list(source) if isinstance(source, list | tuple) else [source]
        texts = {"name": name, "language": language, "description": description}
        held = [snapshot(clip) for clip in sources]
        clips = [clip for clip, _ in held]
        hashes = tuple(content_hash for _, content_hash in held)
        key = (several, hashes, repr(sample_rate), mel, *texts.values())
        with self._lock:
            if key in self._voices:
                self._voices.move_to_end(key)
                return self._voices[key]
        voice = Voice.from_audio(clips if several else clips[0], sample_rate, mel=mel, **texts)
        if None not in hashes:
            with self._lock:
                self._voices[key] = voice
                while len(self._voices) > self._max_voices:
                    self._voices.popitem(last=False)
        return voice


def _parse(path: Path, metadata: dict[str, str], tensors: dict[str, Tensor]) -> Voice:
    """The voice in the parts of its file, each of them checked."""
    version = metadata.get("format_version")
    if metadata.get("format") != "stepflow-tts voice" or version is None:
        raise CheckpointFormatError(f"{path} is a safetensors file, but not a voice.")
    if version != str(VOICE_FORMAT_VERSION):
        raise CheckpointFormatError(
            f"{path} has the voice format {version}; this version reads {VOICE_FORMAT_VERSION}. "
            "Upgrade with pip install -U stepflow-tts."
        )
    missing = [
        key for key in ("mel", "name", "language", "description", "digest") if key not in metadata
    ]
    if missing:
        raise CheckpointFormatError(f"{path} lacks {missing[0]!r}. Save the voice again.")
    if list(tensors) != ["log_mel"] or tensors["log_mel"].dtype != torch.float16:
        found = ", ".join(f"{key} ({tensor.dtype})" for key, tensor in tensors.items()) or "nothing"
        raise CheckpointFormatError(f"{path} holds {found}; a voice holds log_mel (torch.float16).")
    try:
        mel = from_dict(MelConfig, json.loads(metadata["mel"]), where=f"{path}: mel")
        if min(mel.sample_rate, mel.n_fft, mel.hop_length, mel.n_mels) < 1 or not mel.floor > 0:
            raise CheckpointFormatError(f"{path}: mel is {mel}; every number must be above 0.")
        voice = Voice(
            tensors["log_mel"],
            mel,
            metadata["name"],
            metadata["language"],
            metadata["description"],
        )
    except json.JSONDecodeError as error:
        raise CheckpointFormatError(f"{path}: mel is not JSON ({error}).") from error
    except (AudioError, OptionError) as error:
        raise CheckpointFormatError(f"{path}: {error}") from error
    if voice.digest != metadata["digest"]:
        raise CheckpointFormatError(
            f"{path} is damaged: its checksum does not match. Save it again."
        )
    return voice

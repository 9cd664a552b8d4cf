"""The voices that a client may use: the checkpoint's, and those uploaded with the same token."""

import hashlib
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stepflow_tts.server.errors import ApiError
from stepflow_tts.server.schemas import VoiceInfo, VoiceKind
from stepflow_tts.voice import Voice

ALIASES = {
    "alloy": "ada",
    "ash": "ben",
    "ballad": "leo",
    "cedar": "owen",
    "coral": "clara",
    "echo": "hugo",
    "fable": "emma",
    "marin": "clara",
    "nova": "grace",
    "onyx": "owen",
    "sage": "ada",
    "shimmer": "emma",
    "verse": "leo",
}
"""OpenAI's names, which clients send unasked. Another checkpoint's voices take them in turn."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A voice that somebody sent."""

    owner: str
    created_at: int
    voice: Voice


class VoiceStore:
    """Voices by their ids. An upload's id is random; what it was called is data, never a path."""

    def __init__(self, bundled: Mapping[str, Voice], folder: Path | None, max_uploads: int) -> None:
        """Read what the folder holds from the last time.

        Raises:
            CheckpointError: one of its files is damaged.
        """
        self._bundled = bundled
        self._folder = folder
        self._max_uploads = max_uploads
        self._started_at = int(time.time())
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        for path in sorted(folder.glob("*/voice_*.safetensors")) if folder else ():
            created_at = int(path.stat().st_mtime)
            self._uploads[path.stem] = Upload(path.parent.name, created_at, Voice.load(path))

    def list(self, owner: str) -> list[VoiceInfo]:
        """The checkpoint's voices, then those of the owner."""
        bundled = [
            _info(name, voice, "bundled", self._started_at) for name, voice in self._bundled.items()
        ]
        with self._lock:
            uploads = list(self._uploads.items())
        return bundled + [
            _info(voice_id, upload.voice, "audio_sample", upload.created_at)
            for voice_id, upload in uploads
            if upload.owner == owner_key(owner)
        ]

    def find(self, owner: str, name: str | None) -> Voice:
        """The voice with this id, name or alias; the first for None.

        Raises:
            ApiError: there is none for this owner (400).
        """
        if name is None:
            name = next(iter(self._bundled), "")
        if name in self._bundled:
            return self._bundled[name]
        upload = self._uploads.get(name)
        if upload is not None and upload.owner == owner_key(owner):
            return upload.voice
        if name in ALIASES and self._bundled:
            names = list(self._bundled)
            turn = names[list(ALIASES).index(name) % len(names)]
            return self._bundled.get(ALIASES[name], self._bundled[turn])
        raise ApiError(
            400,
            f"There is no voice {name[:40]!r}. GET /v1/audio/voices lists them.",
            param="voice",
            code="voice_not_found",
        )

    def add(self, owner: str, voice: Voice) -> VoiceInfo:
        """The uploaded voice, kept.

        Raises:
            ApiError: the owner has too many (400).
            OSError: the file could not be written.
        """
        key = owner_key(owner)
        with self._lock:
            if sum(upload.owner == key for upload in self._uploads.values()) >= self._max_uploads:
                raise ApiError(
                    400,
                    f"There are {self._max_uploads} uploaded voices already. Delete one first.",
                    code="too_many_voices",
                )
            voice_id = f"voice_{secrets.token_hex(16)}"
            if self._folder is not None:
                self._path(key, voice_id).parent.mkdir(mode=0o700, exist_ok=True)
                voice.save(self._path(key, voice_id))
            self._uploads[voice_id] = Upload(key, int(time.time()), voice)
            return _info(voice_id, voice, "audio_sample", self._uploads[voice_id].created_at)

    def remove(self, owner: str, voice_id: str) -> None:
        """Delete an uploaded voice, its file too.

        Raises:
            ApiError: it is the checkpoint's (403), or the owner has no such voice (404).
        """
        with self._lock:
            if voice_id in self._bundled:
                raise ApiError(403, f"The voice {voice_id!r} comes with the model and stays.")
            upload = self._uploads.get(voice_id)
            if upload is None or upload.owner != owner_key(owner):
                raise ApiError(404, "There is no such voice.", code="voice_not_found")
            if self._folder is not None:
                self._path(upload.owner, voice_id).unlink(missing_ok=True)
            del self._uploads[voice_id]

    def _path(self, key: str, voice_id: str) -> Path:
        """The file of an upload, none of whose parts a client chose."""
        assert self._folder is not None
        return self._folder / key / f"{voice_id}.safetensors"


def owner_key(owner: str) -> str:
    """The folder name that stands for a token's name; "" is for everybody without one."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def _info(voice_id: str, voice: Voice, kind: VoiceKind, created_at: int) -> VoiceInfo:
    """A voice as it is listed."""
    return VoiceInfo(
        id=voice_id,
        name=voice.name,
        type=kind,
        created_at=created_at,
        language=voice.language,
        description=voice.description,
    )

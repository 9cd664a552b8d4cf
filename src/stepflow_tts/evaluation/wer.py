"""What a recognizer hears in speech, and how far it is from what was to be said.

Both texts are normalized as Whisper's authors do ("two" and "2", "colour" and "color" are equal).
Source: Radford et al. 2022 (arXiv 2212.04356), appendix C.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stepflow_tts.audio.io import Samples
from stepflow_tts.errors import CheckpointNotFoundError
from stepflow_tts.evaluation.sources import import_package

PURPOSE = "The word error rate"


@dataclass(frozen=True, slots=True)
class Errors:
    """Edits that turn the words, and the characters, to be said into those heard; fewest possible."""

    words: int  # to be said
    word_errors: int  # substitutions + deletions + insertions
    deletions: int
    insertions: int
    characters: int  # to be said, spaces between words included
    character_errors: int


class Recognizer:
    """Whisper through faster-whisper: samples to text, with the settings that scores are taken with."""

    def __init__(self, source: str = "base") -> None:
        """Load a model.

        Args:
            source: a size such as "base", the folder of a CTranslate2 model, or its Hub id.

        Raises:
            MissingDependencyError: faster-whisper is not installed.
            CheckpointNotFoundError: there is no such model, or it cannot be fetched.
        """
        faster_whisper = import_package("faster_whisper", PURPOSE)
        import huggingface_hub.errors as hub_errors

        path = Path(source).expanduser()
        try:
            self._model: Any = faster_whisper.WhisperModel(
                str(path) if path.is_dir() else source,
                device="cpu",
                compute_type="int8",
                cpu_threads=torch.get_num_threads(),
            )
        except (
            ValueError,
            OSError,
            RuntimeError,
            hub_errors.HTTPError,  # type: ignore[attr-defined]  # the HTTP library's own
        ) as error:
            raise CheckpointNotFoundError(
                f"The recognizer {source!r} cannot be loaded: {error}. Name a size such as 'base', "
                "a Hub id, or the folder of a CTranslate2 model."
            ) from error

    def __call__(self, samples: Samples) -> str:
        """What is heard in (S,) samples at 16 kHz."""
        segments, _ = self._model.transcribe(
            samples,
            language="en",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)


def load_normalizer() -> Callable[[str], str]:
    """Whisper's English normalizer.

    Raises:
        MissingDependencyError: whisper-normalizer is not installed.
    """
    normalizer: Callable[[str], str] = import_package(
        "whisper_normalizer.english", PURPOSE
    ).EnglishTextNormalizer()
    return normalizer


def count_errors(text: str, heard: str) -> Errors:
    """The errors in `heard`, both texts normalized.

    Where several shortest edits exist, deletions and insertions are those of jiwer's alignment.

    Raises:
        MissingDependencyError: jiwer is not installed.
    """
    jiwer = import_package("jiwer", PURPOSE)
    text, heard = (re.sub(r"\s+", " ", part).strip() for part in (text, heard))
    if not text:  # jiwer has no rate for it, but what is heard has been inserted all the same
        inserted = len(heard.split())
        return Errors(0, inserted, 0, inserted, 0, len(heard))
    words = jiwer.process_words(text, heard)
    characters = jiwer.process_characters(text, heard)
    return Errors(
        words=len(text.split()),
        word_errors=words.substitutions + words.deletions + words.insertions,
        deletions=words.deletions,
        insertions=words.insertions,
        characters=len(text),
        character_errors=characters.substitutions + characters.deletions + characters.insertions,
    )

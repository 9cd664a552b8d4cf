"""Checkpoints: where they come from (bundled, local, Hub), and reading and writing their folder.

A checkpoint is one folder:

    config.json             everything needed to rebuild the networks (CheckpointConfig)
    model.safetensors       the acoustic model
    vocoder.safetensors     the vocoder, unless the config has none
    voices/*.safetensors    the voices that come with it; the first by name is the default
    README.md               the model card (MODEL_CARD.md is read too)

Weights are float16 on disk and float32 in memory. Nothing is ever unpickled.
"""

import importlib.resources
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from stepflow_tts.checkpoint_files import (
    CARD_FILES,
    CONFIG_FILE,
    MODEL_FILE,
    VOCODER_FILE,
    VOICES_FOLDER,
    read_config,
)
from stepflow_tts.config import CheckpointConfig, to_dict
from stepflow_tts.errors import (
    CheckpointFormatError,
    CheckpointNotFoundError,
    OptionError,
)
from stepflow_tts.files import write_atomic
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.tensor_files import load_tensors, to_bytes
from stepflow_tts.voice import Voice

Source = str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory; networks in evaluation mode, in float32, on the CPU."""

    config: CheckpointConfig
    model: AcousticModel
    vocoder: Vocoder | None  # None: Griffin-Lim does its work
    voices: dict[str, Voice]  # by name, in order
    card: str | None


def resolve(
    source: Source,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder that holds the checkpoint called `source`, downloaded first if need be.

    Args:
        source: None for the bundled one, a folder, or a Hub id such as "org/name".
        revision: branch, tag or commit on the Hub.
        token: the Hub's access token; None takes the one of `hf auth login`.
        cache_dir: where downloads are kept; None for the Hub client's own place.
        local_files_only: True never touches the network.

    Raises:
        CheckpointNotFoundError: no such folder, repository or revision, or not in the cache.
        CheckpointFormatError: the repository's config is not one this version reads.
        DownloadError: the Hub could not be reached, or refused.
        OptionError: a revision of something that is not on the Hub.
    """
    if source is not None and _names_hub(source):
        # Imported here: the Hub's client takes 0.1 s, which other checkpoints do not need.
        from stepflow_tts.download import download_snapshot

        return download_snapshot(str(source), revision, token, cache_dir, local_files_only)
    if revision is not None:
        raise OptionError(
            f"revision={revision!r} is for checkpoints on the Hub, and {source!r} is "
            f"{'the bundled one' if source is None else 'a local folder'}: leave it out."
        )
    if source is None:
        folder = Path(str(importlib.resources.files("stepflow_tts") / "weights"))
        if not (folder / CONFIG_FILE).is_file():
            raise CheckpointNotFoundError(
                f"This installation has no bundled checkpoint in {folder}. Reinstall with "
                "pip install --force-reinstall stepflow-tts, or name a folder or a Hub id."
            )
        return folder
    folder = Path(source).expanduser()
    if not os.path.isdir(folder):  # unlike Path.is_dir, also for names that are too long
        found = "is a file" if os.path.exists(folder) else "does not exist"
        raise CheckpointNotFoundError(
            f"The checkpoint folder {str(folder)!r} {found}. Name a folder that holds "
            f"{CONFIG_FILE} and {MODEL_FILE}, or a Hub id such as 'org/name'."
        )
    return folder


def load_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, every tensor checked.

    Raises:
        CheckpointNotFoundError: a file is missing.
        CheckpointFormatError: a file is damaged, or does not fit the config or this version.
    """
    config = read_config(folder / CONFIG_FILE)
    model = build_model(config)
    load_tensors(model, folder / MODEL_FILE)
    vocoder = None
    if config.vocoder is not None:
        vocoder = Vocoder(config.vocoder, config.mel)
        load_tensors(vocoder, folder / VOCODER_FILE)
    paths = sorted((folder / VOICES_FOLDER).glob("*.safetensors"))
    voices = {path.stem: Voice.load(path) for path in paths}
    cards = [folder / name for name in CARD_FILES if (folder / name).is_file()]
    card = cards[0].read_text(encoding="utf-8") if cards else None
    return Checkpoint(config, model, vocoder, voices, card)


def build_model(config: CheckpointConfig) -> AcousticModel:
    """The acoustic model that `config` describes, with weights drawn at random."""
    return AcousticModel(
        config.model,
        conditioning=config.conditioning,
        num_symbols=len(config.symbols),
        n_mels=config.mel.n_mels,
        num_steps=config.num_steps,
    )


def save_checkpoint(
    folder: str | os.PathLike[str],
    config: CheckpointConfig,
    model: AcousticModel,
    vocoder: Vocoder | None,
    voices: Mapping[str, Voice],
    *,
    card: str | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a checkpoint folder; a failure leaves no file, and a crash none that would be read.

    A checkpoint that is already there is replaced; files that are not part of it stay.

    Args:
        folder: created if missing.
        config: what rebuilds `model` and `vocoder`.
        model: the acoustic model.
        vocoder: None if and only if the config has none.
        voices: by name; letters, digits, "_", "-" and "." only.
        card: Markdown for README.md; None leaves that file alone.
        dtype: of the tensors on disk.

    Raises:
        OptionError: `folder` holds other things, or a voice's name cannot be a file name.
        CheckpointFormatError: the parts do not fit together, or a value does not fit `dtype`.
    """
    folder = Path(folder).expanduser()
    _check_writable(folder)
    if (config.vocoder is None) != (vocoder is None):
        raise CheckpointFormatError(
            f"config.vocoder is {config.vocoder} and the vocoder {type(vocoder).__name__}: "
            "give both or neither."
        )
    files = {MODEL_FILE: to_bytes(model, dtype, MODEL_FILE)}
    if vocoder is not None:
        files[VOCODER_FILE] = to_bytes(vocoder, dtype, VOCODER_FILE)
    if card is not None:
        files[CARD_FILES[0]] = card.encode()
    wrong = [name for name in voices if not re.fullmatch(r"\w[\w.-]*", name)]
    if wrong:
        raise OptionError(f"The voice name {wrong[0]!r} cannot be a file name; use A-Z, 0-9, _-.")
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            _write_all(Path(partial), files, config, voices)
            _move_all(Path(partial), folder, [*files, *(_voice_file(name) for name in voices)])
    finally:
        if created and not any(folder.iterdir()):
            folder.rmdir()


def _names_hub(source: str | os.PathLike[str]) -> bool:
    """Whether `source` can only mean a Hub id: not a path object, nothing here, no look of a path."""
    if not isinstance(source, str) or (source and os.path.exists(os.path.expanduser(source))):
        return False
    is_path = re.match(r"[./~\\]|[A-Za-z]:", source) or "\\" in source or source.endswith("/")
    return not is_path and source.count("/") <= 1


def _check_writable(folder: Path) -> None:
    """Refuse a folder that holds other things than a checkpoint; hidden files do not count."""
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is a file; name a folder to save the checkpoint in.")
    if not folder.exists() or (folder / CONFIG_FILE).is_file():
        return
    other = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    if other and not set(other) <= set(CARD_FILES):
        raise OptionError(
            f"{folder} is no checkpoint but holds {other[0]!r}; name a new or an empty folder."
        )


def _voice_file(name: str) -> str:
    """Where a voice lies inside the folder."""
    return f"{VOICES_FOLDER}/{name}.safetensors"


def _write_all(
    partial: Path, files: Mapping[str, bytes], config: CheckpointConfig, voices: Mapping[str, Voice]
) -> None:
    """Everything into a folder that nobody reads."""
    text = json.dumps(to_dict(config), indent=2, ensure_ascii=False, allow_nan=False)
    for name, data in {**files, CONFIG_FILE: text.encode()}.items():
        write_atomic(partial / name, data)
    if voices:
        (partial / VOICES_FOLDER).mkdir()
    for name, voice in voices.items():
        voice.save(partial / _voice_file(name))


def _move_all(partial: Path, folder: Path, names: list[str]) -> None:
    """From `partial` into place; without a config in between, so never a mixture that can be read."""
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    old = [folder / MODEL_FILE, folder / VOCODER_FILE]
    for path in (*old, *(folder / VOICES_FOLDER).glob("*.safetensors")):
        path.unlink(missing_ok=True)
    for name in (*names, CONFIG_FILE):
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(partial / name, folder / name)

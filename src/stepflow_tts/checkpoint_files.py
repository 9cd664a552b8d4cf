"""The names of a checkpoint's files, and its config, read strictly. Imports no torch."""

import dataclasses
import json
from pathlib import Path

from stepflow_tts.config import FORMAT_VERSION, CheckpointConfig, from_dict
from stepflow_tts.errors import CheckpointFormatError, CheckpointNotFoundError

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
VOCODER_FILE = "vocoder.safetensors"
VOICES_FOLDER = "voices"
CARD_FILES = ("README.md", "MODEL_CARD.md")
MAX_NUMBER = 1_000_000  # of any setting; beyond lies no network that fits in memory
LOWEST = {
    "mean": -MAX_NUMBER,
    "contrast": 0,
    "formants": 0,
    "griffin_lim_iterations": 0,
    "refiner_layers": 0,
}  # all other numbers are above 0


def read_config(path: Path) -> CheckpointConfig:
    """The config in a JSON file.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointFormatError: it is not JSON, comes from a newer version, or has a wrong key or value.
    """
    try:
        data = json.loads(read_file(path))
    except ValueError as error:
        raise CheckpointFormatError(f"{path} is not valid JSON: {error}.") from error
    version = data.get("format_version", FORMAT_VERSION) if isinstance(data, dict) else None
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise CheckpointFormatError(
            f"{path} has format version {version}; this stepflow-tts reads {FORMAT_VERSION}. "
            "Upgrade with pip install -U stepflow-tts."
        )
    config = from_dict(CheckpointConfig, data, where=str(path))
    _check_numbers(config, str(path))
    for width, heads in (("dim", "num_heads"), ("text_dim", "text_heads")):
        if getattr(config.model, width) % (2 * getattr(config.model, heads)):
            raise CheckpointFormatError(f"{path}: model.{width} must be a multiple of 2 {heads}.")
    return config


def read_file(path: Path) -> bytes:
    """All bytes of a checkpoint's file.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointFormatError: the system cannot read it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointNotFoundError(
            f"{path.parent} holds no checkpoint: {path.name} is missing."
        ) from error
    except OSError as error:
        raise CheckpointFormatError(f"{path} cannot be read: {error.strerror}.") from error


def _check_numbers(config: object, where: str) -> None:
    """Refuse numbers that no network can be built with."""
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        name = f"{where}.{field.name}"
        if dataclasses.is_dataclass(value):
            _check_numbers(value, name)
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not isinstance(number, bool):
                low = LOWEST.get(field.name)
                if not (number > 0 if low is None else number >= low) or not number <= MAX_NUMBER:
                    raise CheckpointFormatError(
                        f"{name} is {number}; it must be "
                        f"{'above 0' if low is None else f'at least {low}'}, at most {MAX_NUMBER}."
                    )

"""The files of a checkpoint: its config, and safetensors with a checksum, both read strictly."""

import dataclasses
import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from stepflow_tts.config import FORMAT_VERSION, CheckpointConfig, from_dict
from stepflow_tts.errors import CheckpointFormatError, CheckpointNotFoundError

CONFIG_FILE = "config.json"
MODEL_FILE = "model.safetensors"
VOCODER_FILE = "vocoder.safetensors"
VOICES_FOLDER = "voices"
CARD_FILES = ("README.md", "MODEL_CARD.md")
MAX_NUMBER = 1_000_000  # of any setting; beyond lies no network that fits in memory
LOWEST = {"mean": -MAX_NUMBER, "griffin_lim_iterations": 0}  # all other numbers are above 0


def read_config(path: Path) -> CheckpointConfig:
    """The config in a JSON file.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointFormatError: it is not JSON, comes from a newer version, or has a wrong key or value.
    """
    try:
        data = json.loads(_read(path))
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, compared with its checksum if it has one.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointFormatError: it is damaged, or not a safetensors file.
    """
    data = _read(path)
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CheckpointFormatError(f"{path} {_why_not(data)} ({error}).") from error
    header_end = 8 + int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8:header_end]).get("__metadata__", {})
    if metadata.get("sha256", digest := hashlib.sha256(data[header_end:]).hexdigest()) != digest:
        raise CheckpointFormatError(
            f"{path} is damaged: its tensors do not match its checksum. Delete it and fetch it again."
        )
    return tensors


def load_tensors(module: nn.Module, path: Path) -> None:
    """Give `module` the tensors in `path`, all of them and no others, and make it ready for inference."""
    tensors, expected = read_tensors(path), module.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise CheckpointFormatError(f"{path} lacks the tensor {name!r}.")
        if name not in expected:
            raise CheckpointFormatError(f"{path} has the tensor {name!r}, which is not expected.")
        got, want = tensors[name], expected[name]
        if got.shape != want.shape or got.is_floating_point() != want.is_floating_point():
            raise CheckpointFormatError(
                f"{path}: the tensor {name!r} is {got.dtype} {tuple(got.shape)}; the config asks for "
                f"{want.dtype} {tuple(want.shape)}."
            )
        if got.is_floating_point() and not got.isfinite().all():
            raise CheckpointFormatError(f"{path}: the tensor {name!r} has non-finite values.")
    module.load_state_dict(tensors)
    module.eval().requires_grad_(False)


def to_bytes(module: nn.Module, dtype: torch.dtype, name: str) -> bytes:
    """A safetensors file of the module's tensors, with a checksum of them in its metadata."""
    tensors = {}
    for key, value in module.state_dict().items():
        cast = value.detach().to("cpu", dtype if value.is_floating_point() else None, copy=True)
        if cast.is_floating_point() and not cast.isfinite().all():
            raise CheckpointFormatError(
                f"{name}: the tensor {key!r} has values that {dtype} cannot hold "
                f"(largest {value.abs().max().item():.3g}). Save it with dtype=torch.float32."
            )
        tensors[key] = cast.contiguous()
    data = safetensors.torch.save(tensors)
    digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    return safetensors.torch.save(tensors, metadata={"format": "pt", "sha256": digest})


def _why_not(data: bytes) -> str:
    """Why bytes that are no safetensors file are none, and what to do."""
    # Only asked after reading failed: a sound file may start with 0x80 too, in its header's length.
    if data.startswith((b"PK\x03\x04", b"\x80")):  # torch.save, pickle.dump
        return "is a pickle; only safetensors files are read"
    if data.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs: run git lfs pull there"
    return f"({len(data)} bytes) is not a whole safetensors file: delete it and fetch it again"


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


def _read(path: Path) -> bytes:
    """All bytes of a checkpoint's file."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CheckpointNotFoundError(
            f"{path.parent} holds no checkpoint: {path.name} is missing."
        ) from error
    except OSError as error:
        raise CheckpointFormatError(f"{path} cannot be read: {error.strerror}.") from error

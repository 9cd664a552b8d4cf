"""Weights in safetensors files with a checksum, read strictly into modules."""

import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from stepflow_tts.checkpoint_files import read_file
from stepflow_tts.errors import CheckpointFormatError


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, compared with its checksum if it has one.

    Raises:
        CheckpointNotFoundError: there is no such file.
        CheckpointFormatError: it is damaged, or not a safetensors file.
    """
    data = read_file(path)
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
    # One entry only: safetensors writes several in an order that changes from run to run.
    return safetensors.torch.save(tensors, metadata={"sha256": digest})


def _why_not(data: bytes) -> str:
    """Why bytes that are no safetensors file are none, and what to do."""
    # Only asked after reading failed: a sound file may start with 0x80 too, in its header's length.
    if data.startswith((b"PK\x03\x04", b"\x80")):  # torch.save, pickle.dump
        return "is a pickle; only safetensors files are read"
    if data.startswith(b"version https://git-lfs"):
        return "is a pointer of git-lfs: run git lfs pull there"
    return f"({len(data)} bytes) is not a whole safetensors file: delete it and fetch it again"

"""The state of a training run in one safetensors file: weights, EMA, optimizers, update number."""

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stepflow_tts.errors import CheckpointFormatError

STATE_FILE = "state.safetensors"


class HasState(Protocol):
    """An optimizer, or several as one."""

    @property
    def state(self) -> MutableMapping[Tensor, Any]:
        """What it keeps of each parameter, by name; a parameter that is not there yet gets a dict."""


def save_state(
    path: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    ema: nn.Module,
    optimizers: Mapping[str, HasState],
) -> None:
    """Write everything that resuming needs; the file at `path` is always a whole one.

    Raises:
        OSError: it could not be written, for example because the disk is full.
    """
    tensors: dict[str, Tensor] = {f"ema/{k}": v for k, v in ema.state_dict().items()}
    for name, module in modules.items():
        tensors |= {f"{name}/{k}": v for k, v in module.state_dict().items()}
        tensors |= _optimizer_tensors(name, module, optimizers[name])
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, metadata={"step": str(step)})
    except SafetensorError as error:
        partial.unlink(missing_ok=True)  # which old versions of safetensors leave
        raise OSError(
            f"The state of update {step} could not be written to {path}: {error}. What is there is "
            "the last whole one: make room, and the same command goes on from it."
        ) from error
    os.replace(partial, path)


def load_state(
    path: Path,
    modules: Mapping[str, nn.Module],
    ema: nn.Module,
    optimizers: Mapping[str, HasState],
) -> int:
    """Restore what `save_state` wrote, and give back the number of updates done.

    Raises:
        CheckpointFormatError: the file is damaged, or belongs to other modules.
    """
    try:
        with safe_open(path, "pt") as file:
            step = int(file.metadata()["step"])
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointFormatError(
            f"{path} is not a training state: {error}. Remove it to start this run anew."
        ) from error
    _load(ema, _part(tensors, "ema/"), path)
    for name, module in modules.items():
        _load(module, _part(tensors, f"{name}/"), path)
        parameters = dict(module.named_parameters())
        for key, value in _part(tensors, f"optimizer.{name}/").items():
            field, _, parameter = key.partition("/")
            if parameter not in parameters:
                raise CheckpointFormatError(
                    f"{path} has optimizer state for {parameter!r}, unknown."
                )
            p = parameters[parameter]
            # The counter too: a fused AdamW keeps it beside the weights.
            optimizers[name].state[p][field] = value.to(p.device)
    return step


def load_weights(path: Path, part: str = "ema") -> dict[str, Tensor]:
    """The weights called `part` in a training state, for evaluation or a next stage.

    Raises:
        CheckpointFormatError: the file is damaged or has no such part.
    """
    try:
        with safe_open(path, "pt") as file:
            keys = [k for k in file.keys() if k.startswith(f"{part}/")]  # noqa: SIM118
            weights = {k.removeprefix(f"{part}/"): file.get_tensor(k) for k in keys}
    except (SafetensorError, OSError) as error:
        raise CheckpointFormatError(f"{path} is not a training state: {error}.") from error
    if not weights:
        raise CheckpointFormatError(f"{path} holds no weights called {part!r}.")
    return weights


def _optimizer_tensors(name: str, module: nn.Module, optimizer: HasState) -> dict[str, Tensor]:
    """AdamW's two moments and counter, by the parameter's name."""
    return {
        f"optimizer.{name}/{field}/{key}": torch.as_tensor(value)
        for key, p in module.named_parameters()
        for field, value in optimizer.state.get(p, {}).items()
    }


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _load(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointFormatError(f"{path} does not fit this model: {error}") from error

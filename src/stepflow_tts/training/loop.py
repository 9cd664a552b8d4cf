"""The one training loop: updates, EMA, checkpoints, exact resume, a progress line and a CSV of losses.

A `Task` says what is trained on what. Its batches are a pure function of (seed, step), and all its
randomness comes from `step_generator`; so a run that was killed and resumed equals one that was not.
An update takes the mean gradient of `batches_per_update` batches, which the processes of the run
share among them: so the result does not depend on how many processes there are.
"""

import copy
import logging
import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from stepflow_tts.errors import OptionError
from stepflow_tts.training.checkpoint import STATE_FILE, load_state, save_state
from stepflow_tts.training.log import Log
from stepflow_tts.training.processes import Processes

logger = logging.getLogger(__name__)

MAX_SKIPPED = 10  # updates in a row of one module
BLOCK_MATRICES = (".qkv.", ".attention_out.", ".ff_in.", ".ff_out.")


class Loss(NamedTuple):
    """One backward pass and one optimizer step."""

    module: str  # which of the task's modules is stepped
    value: Tensor  # scalar
    logs: dict[str, float]


class Task(Protocol):
    """What is trained."""

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """The trained modules, each with an optimizer of its own; an EMA is kept of the first."""

    def batch(self, step: int) -> Any:
        """The data of a loss, a pure function of the task's seed and `step`, which counts batches."""

    def losses(self, batch: Any, step: int) -> Iterator[Loss]:
        """The losses of a batch in turn; each is stepped before the next is asked for.

        What follows the last one is done once an update.
        """

    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:
        """Scores of the averaged weights on data kept back; may be empty."""


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """Settings of the loop, the same for every task."""

    num_updates: int
    batches_per_update: int = 1  # their gradients are averaged; a multiple of the processes
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for hidden matrices, AdamW for the rest
    learning_rate: float = 1e-3
    final_learning_rate: float = 2e-5
    beta_1: float = 0.9
    beta_2: float = 0.98
    weight_decay: float = 0.01
    warmup_updates: int = 500
    clip_norm: float = 1.0
    ema_decay: float = 0.9995
    checkpoint_seconds: float = 600.0
    precision: Literal["float32", "bfloat16"] = "float32"  # of the forward passes' matrix products
    log_every: int = 20
    validate_every: int = 500


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of all randomness of one update, on the CPU."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up, then a cosine from `learning_rate` to `final_learning_rate`."""
    if step < config.warmup_updates:
        return config.learning_rate * (step + 1) / config.warmup_updates
    span = max(1, config.num_updates - config.warmup_updates)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - config.warmup_updates) / span)))
    return config.final_learning_rate + cosine * (config.learning_rate - config.final_learning_rate)


def train(
    task: Task,
    folder: Path,
    config: LoopConfig,
    *,
    device: str = "cpu",
    processes: Processes | None = None,
) -> nn.Module:
    """Train to `config.num_updates`, from the state in `folder` if there is one; gives back the EMA.

    SIGTERM and Ctrl-C save the state first, then raise KeyboardInterrupt.

    Args:
        task: what is trained.
        folder: of the state and the losses; created if missing.
        config: settings of the loop.
        device: to train on.
        processes: that share the run; None = those that this process belongs to.

    Raises:
        OptionError: the processes cannot share an update's batches evenly.
    """
    processes = processes or Processes(device)
    _check_shares(config, processes)
    folder.mkdir(parents=True, exist_ok=True)
    modules = {name: module.to(processes.device).train() for name, module in task.modules.items()}
    ema = copy.deepcopy(next(iter(modules.values()))).eval().requires_grad_(False)
    optimizers = {name: Optimizers(module, config) for name, module in modules.items()}
    state_path = folder / STATE_FILE
    step = load_state(state_path, modules, ema, optimizers) if state_path.exists() else 0
    following = processes.share(modules)
    log = Log(folder / "losses.csv", step, processes)
    saved_at = time.monotonic()
    skipped: dict[str, int] = defaultdict(int)
    with _stop_signals() as stopped:
        while step < config.num_updates and not processes.any(bool(stopped)):
            streams = _streams(task, step, config, processes)
            while losses := _backward(streams, following, modules, processes):
                name = losses[0].module
                norm = _update(modules[name], optimizers[name], config, step)
                skipped[name] = 0 if math.isfinite(norm) else skipped[name] + 1
                _check_skipped(skipped[name], name, step)
                for loss in losses:
                    log.add(loss.logs)
                log.add({f"norm_{name}": norm})
            _average(ema, next(iter(modules.values())), step, config.ema_decay)
            step += 1
            if step % config.validate_every == 0 and processes.is_main:
                log.add(task.validate(ema, step))
            if step % config.log_every == 0:
                log.write(step, config.num_updates)
            if time.monotonic() - saved_at > config.checkpoint_seconds and processes.is_main:
                save_state(state_path, step, modules, ema, optimizers)
                saved_at = time.monotonic()
    if processes.is_main:
        save_state(state_path, step, modules, ema, optimizers)
    if stopped or step < config.num_updates:
        raise KeyboardInterrupt
    return ema


class Optimizers:
    """One or two optimizers that share a module's parameters among them, used as one."""

    def __init__(self, module: nn.Module, config: LoopConfig) -> None:
        """Weights decay in matrices only, not in biases, norms or single vectors."""
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        betas = (config.beta_1, config.beta_2)
        hidden = [p for n, p in named if config.optimizer == "muon" and _is_hidden(n, p)]
        taken = {id(p) for p in hidden}
        others = [p for _, p in named if id(p) not in taken]
        groups = [
            {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.each: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)
        ]
        self.state = self.each[0].state  # moments by parameter, of both
        if hidden:
            # its updates scaled to AdamW's size, so that one learning rate fits both
            self.each.append(
                torch.optim.Muon(
                    hidden,
                    lr=config.learning_rate,
                    weight_decay=config.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
            self.each[1].state = self.state

    def step(self, learning_rate: float) -> None:
        """One update from the gradients."""
        for optimizer in self.each:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon is made for it: a matrix of a transformer block, not one of its modulation."""
    return parameter.ndim == 2 and any(part in name for part in BLOCK_MATRICES)


def _check_shares(config: LoopConfig, processes: Processes) -> None:
    """Refuse batches that cannot be shared evenly."""
    count = config.batches_per_update
    if count < 1 or count % processes.count:
        raise OptionError(
            f"batches_per_update is {count} and there are {processes.count} processes; it must be a "
            f"multiple of that, such as {processes.count}."
        )


def _streams(
    task: Task, step: int, config: LoopConfig, processes: Processes
) -> list[Iterator[Loss]]:
    """The losses of each of this process's batches of an update."""
    first, count = step * config.batches_per_update, config.batches_per_update
    own = range(first + processes.index, first + count, processes.count)
    return [_losses(task, i, config.precision, processes.device) for i in own]


def _backward(
    streams: Sequence[Iterator[Loss]],
    following: nn.Module,
    modules: Mapping[str, nn.Module],
    processes: Processes,
) -> list[Loss]:
    """The next loss of each stream, its mean gradient in the module; none at the streams' end."""
    losses: list[Loss] = []
    for i, stream in enumerate(streams):
        last = i == len(streams) - 1
        with nullcontext() if last else processes.unshared(following):
            loss: Loss | None = following(stream)
            if loss is None:
                return []
            if i == 0:
                modules[loss.module].zero_grad(set_to_none=True)
            (loss.value / len(streams)).backward()  # type: ignore[no-untyped-call]
            losses.append(loss._replace(value=loss.value.detach()))
    return losses


def _update(module: nn.Module, optimizers: Optimizers, config: LoopConfig, step: int) -> float:
    """One optimizer step, none if the gradient is not finite; gives back its norm before clipping."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), config.clip_norm)
    if torch.isfinite(norm):
        optimizers.step(learning_rate(config, step))
    return float(norm)


def _check_skipped(skipped: int, module: str, step: int) -> None:
    """Tell of an update that was skipped, and stop when that has become the rule."""
    if skipped:
        logger.warning("update %d of %s skipped: its gradient is not finite", step, module)
    if skipped >= MAX_SKIPPED:
        raise FloatingPointError(
            f"The gradient of {module} has not been finite for {skipped} updates, the last of "
            f"them {step}. Resume with a lower learning_rate; the last checkpoint is good."
        )


def _losses(task: Task, step: int, precision: str, device: str) -> Iterator[Loss]:
    """The task's losses, each computed in `precision`."""
    losses = task.losses(task.batch(step), step)
    while True:
        enabled = precision == "bfloat16"
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=enabled):
            loss = next(losses, None)
        if loss is None:
            return
        yield loss


@torch.no_grad()
def _average(ema: nn.Module, module: nn.Module, step: int, decay: float) -> None:
    """Move the EMA towards the weights; faster at the start, when the weights still run."""
    weight = 1 - min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(module.parameters()), weight)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that SIGINT or SIGTERM makes non-empty, so that an update is never cut in two."""
    received: list[int] = []
    previous = {
        s: signal.signal(s, lambda number, _: received.append(number))
        for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)

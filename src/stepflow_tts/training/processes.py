"""The processes that share a run: one, or those that `accelerate launch` has started."""

import datetime
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn

from stepflow_tts.errors import MissingDependencyError

T = TypeVar("T")


class Processes:
    """One process, and what it needs of the others in its run."""

    def __init__(self, device: str) -> None:
        """Join the others, if there are any.

        Args:
            device: of the recipe; of several processes each gets a GPU of its own.

        Raises:
            MissingDependencyError: there are several, and accelerate is not installed.
        """
        self.count, self.index, self.device = int(os.environ.get("WORLD_SIZE", "1")), 0, device
        self._accelerator: Any = None
        if self.count > 1:
            self._accelerator = _accelerator(device)
            self.index, self.device = (
                self._accelerator.process_index,
                str(self._accelerator.device),
            )

    @property
    def is_main(self) -> bool:
        """Whether it is this one that writes files."""
        return self.index == 0

    def main_first(self) -> AbstractContextManager[None]:
        """Inside, the main process is alone; the others come in when it has left."""
        if self._accelerator is None:
            return nullcontext()
        return self._accelerator.main_process_first()  # type: ignore[no-any-return]

    def share(self, modules: Mapping[str, nn.Module]) -> nn.Module:
        """A module whose forward is `next(losses, None)`; backward averages gradients over all."""
        following = Next(modules)
        return following if self._accelerator is None else self._accelerator.prepare(following)

    def unshared(self, following: nn.Module) -> AbstractContextManager[None]:
        """Inside, gradients of what `share` gave stay in this process, to be added to."""
        if self._accelerator is None:
            return nullcontext()
        return self._accelerator.no_sync(following)  # type: ignore[no-any-return]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any of them."""
        if self._accelerator is None:
            return flag
        if flag:
            self._accelerator.set_trigger()
        return bool(self._accelerator.check_trigger())

    def gather(self, value: T) -> list[T]:
        """The value of each, in every one of them."""
        if self._accelerator is None:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))


class Next(nn.Module):
    """Asks for the next item; as a module of those that it comes from, so that it can be shared."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.sources = nn.ModuleDict(modules)

    def forward(self, items: Iterator[T]) -> T | None:
        """The next item; None at the end."""
        return next(items, None)


def _accelerator(device: str) -> Any:
    try:
        from accelerate import (
            Accelerator,
            DistributedDataParallelKwargs,
            InitProcessGroupKwargs,
        )
    except ImportError as error:
        raise MissingDependencyError(
            f"This run has WORLD_SIZE={os.environ['WORLD_SIZE']} processes, which needs accelerate: "
            "pip install 'stepflow-tts[train]'"
        ) from error
    # A loss does not reach every module: that of a discriminator leaves the vocoder alone.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    # The others wait while the main one validates, or tracks the pitch of a whole corpus.
    patience = InitProcessGroupKwargs(timeout=datetime.timedelta(days=2))
    on_cpu = torch.device(device).type == "cpu"
    return Accelerator(cpu=on_cpu, mixed_precision="no", kwargs_handlers=[unused, patience])

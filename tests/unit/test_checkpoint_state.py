"""The state of a training run: written whole, read back to the bit, refused when damaged."""

import copy
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stepflow_tts.errors import CheckpointFormatError
from stepflow_tts.training import checkpoint
from stepflow_tts.training.checkpoint import load_state, load_weights, save_state


class Run:
    """Two modules with optimizers, and an EMA of the first."""

    def __init__(self, seed: int, width: int = 4) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.modules = {"model": nn.Linear(3, width), "critic": nn.Linear(2, 1)}
            self.ema = copy.deepcopy(self.modules["model"])
        self.optimizers = {
            name: torch.optim.AdamW(m.parameters(), lr=0.1, fused=True)
            for name, m in self.modules.items()
        }

    def update(self) -> None:
        for name, module in self.modules.items():
            self.optimizers[name].zero_grad()
            module(torch.ones(1, module.in_features)).square().sum().backward()
            self.optimizers[name].step()
        with torch.no_grad():
            self.ema.weight.lerp_(self.modules["model"].weight, 0.3)

    def save(self, path: Path, step: int) -> None:
        save_state(path, step, self.modules, self.ema, self.optimizers)

    def load(self, path: Path) -> int:
        return load_state(path, self.modules, self.ema, self.optimizers)

    def tensors(self) -> dict[str, Tensor]:
        found = {f"ema.{k}": v for k, v in self.ema.state_dict().items()}
        for name, module in self.modules.items():
            for key, p in module.named_parameters():
                found[f"{name}.{key}"] = p.detach()
                state = self.optimizers[name].state[p]
                found |= {f"{name}.{key}.{field}": value for field, value in state.items()}
        return found


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Run]:
    run = Run(seed=0)
    for _ in range(3):
        run.update()
    path = tmp_path / "state.safetensors"
    run.save(path, 3)
    return path, run


def test_everything_comes_back_and_goes_on_the_same(saved: tuple[Path, Run]) -> None:
    path, run = saved
    other = Run(seed=9)
    assert other.load(path) == 3
    assert len(other.tensors()) == 2 + 4 * 4  # EMA; each weight with two moments and a counter
    assert equal(other.tensors(), run.tensors())
    run.update()
    other.update()
    assert equal(other.tensors(), run.tensors())


def test_a_run_that_has_done_nothing_can_be_saved(tmp_path: Path) -> None:
    run, path = Run(seed=0), tmp_path / "state.safetensors"
    run.save(path, 0)
    other = Run(seed=1)
    assert other.load(path) == 0
    run.update()
    other.update()
    assert equal(other.tensors(), run.tensors())


def test_saving_leaves_one_file(saved: tuple[Path, Run]) -> None:
    path, run = saved
    run.save(path, 4)
    assert [p.name for p in path.parent.iterdir()] == ["state.safetensors"]


def half_written(tensors: dict[str, Tensor], path: Path, **_: Any) -> None:
    """A disk that fills up."""
    path.write_bytes(b"half")
    raise OSError(28, "No space left on device")


def test_a_crash_while_saving_leaves_the_old_state_whole(
    saved: tuple[Path, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run = saved
    before = {k: v.clone() for k, v in run.tensors().items()}
    run.update()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", half_written)
        with pytest.raises(OSError, match="No space"):
            run.save(path, 4)
    other = Run(seed=9)
    assert other.load(path) == 3
    assert equal(other.tensors(), before)
    run.save(path, 4)  # and what the crash left behind is in nobody's way
    assert other.load(path) == 4
    assert [p.name for p in path.parent.iterdir()] == ["state.safetensors"]


def test_a_full_disk_is_told_and_leaves_the_old_state_whole(saved: tuple[Path, Run]) -> None:
    """A limit on the size of files stands for the disk."""
    path, run = saved
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(OSError, match=r"state of update 4 could not .* the last whole one"):
            run.save(path, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["state.safetensors"]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_by_one(data: bytes) -> bytes:
    return data[:-1]


def emptied(data: bytes) -> bytes:
    return b""


def header_only(data: bytes) -> bytes:
    return data[:8]


def garbage(data: bytes) -> bytes:
    return b"\x80\x04" + data


@pytest.mark.parametrize("damage", [cut, cut_by_one, emptied, header_only, garbage])
def test_a_damaged_state_is_refused(
    saved: tuple[Path, Run], damage: Callable[[bytes], bytes]
) -> None:
    path, _ = saved
    path.write_bytes(damage(path.read_bytes()))
    other = Run(seed=9)
    before = {k: v.clone() for k, v in other.ema.state_dict().items()}
    with pytest.raises(CheckpointFormatError, match=r"state\.safetensors is not a training state"):
        other.load(path)
    assert equal(other.ema.state_dict(), before)
    with pytest.raises(CheckpointFormatError, match="is not a training state"):
        load_weights(path)


def test_weights_without_a_step_are_no_state(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"ema/weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointFormatError, match="is not a training state"):
        Run(seed=0).load(path)
    save_file({"ema/weight": torch.zeros(2)}, path, metadata={"step": "many"})
    with pytest.raises(CheckpointFormatError, match="is not a training state"):
        Run(seed=0).load(path)


def test_the_state_of_another_model_is_refused(saved: tuple[Path, Run]) -> None:
    path, _ = saved
    with pytest.raises(CheckpointFormatError, match=r"(?s)does not fit this model.*size mismatch"):
        Run(seed=0, width=5).load(path)
    run = Run(seed=0)
    del run.modules["critic"]
    run.modules["other"] = nn.Linear(2, 1)
    run.optimizers["other"] = torch.optim.AdamW(run.modules["other"].parameters())
    with pytest.raises(CheckpointFormatError, match=r"(?s)does not fit this model.*Missing key"):
        run.load(path)


def test_weights_alone_can_be_taken(saved: tuple[Path, Run]) -> None:
    path, run = saved
    assert equal(load_weights(path), dict(run.ema.state_dict()))
    assert equal(load_weights(path, "critic"), dict(run.modules["critic"].state_dict()))
    with pytest.raises(CheckpointFormatError, match="holds no weights called 'student'"):
        load_weights(path, "student")


def test_the_file_holds_tensors_by_name(saved: tuple[Path, Run]) -> None:
    """The names are the format: runs that are under way go on with them."""
    path, _ = saved
    assert set(load_file(path)) == {
        *(f"ema/{k}" for k in ("weight", "bias")),
        *(f"{m}/{k}" for m in ("model", "critic") for k in ("weight", "bias")),
        *(
            f"optimizer.{m}/{field}/{k}"
            for m in ("model", "critic")
            for field in ("exp_avg", "exp_avg_sq", "step")
            for k in ("weight", "bias")
        ),
    }

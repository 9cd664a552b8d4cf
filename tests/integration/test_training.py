"""The loop: exact resume, what is logged, what is refused; and a recipe from clips to speech."""

import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from stepflow_tts import StepFlowTTS
from stepflow_tts.config import FlowConfig, preset
from stepflow_tts.errors import CheckpointFormatError, InputError, OptionError
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.tensor_files import read_tensors
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS
from stepflow_tts.training.checkpoint import STATE_FILE, load_weights
from stepflow_tts.training.data import Corpus, DataConfig
from stepflow_tts.training.distill import DistillTask
from stepflow_tts.training.loop import (
    MAX_SKIPPED,
    LoopConfig,
    Loss,
    learning_rate,
    step_generator,
    train,
)
from stepflow_tts.training.prepare import is_held_out, prepare
from stepflow_tts.training.recipe import read_recipe
from stepflow_tts.training.run import run
from stepflow_tts.training.teacher import TeacherConfig, TeacherTask

Audio = Callable[..., npt.NDArray[np.float32]]
CONFIG = LoopConfig(num_updates=12, warmup_updates=4, log_every=2, validate_every=4)


class Adversaries:
    """Two modules that are stepped in turn; the second loss sees what the first step did."""

    def __init__(self, *, stop_at: int | None = None, fail_at: int | None = None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.maker = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
            self.critic = nn.Linear(4, 1)
        self.stop_at, self.fail_at = stop_at, fail_at
        self.weights: list[Tensor] = []

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"maker": self.maker, "critic": self.critic}

    def batch(self, step: int) -> Tensor:
        if step == self.fail_at:
            raise OSError("the disk is gone")
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return torch.randn(6, 4, generator=step_generator(7, step))

    def losses(self, batch: Tensor, step: int) -> Iterator[Loss]:
        made = self.maker(batch)
        critic = (self.critic(made.detach()) - self.critic(batch)).mean() + made.detach().mean()
        yield Loss("critic", critic, {"critic": critic.item()})
        fooled = (made - batch).square().mean() - self.critic(made).mean()
        yield Loss("maker", fooled, {"maker": fooled.item()})
        self.weights.append(self.maker[0].weight.detach().clone())

    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:
        return {"held_out": float(ema(torch.ones(1, 4)).sum()), "at": float(step)}


def state_of(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / STATE_FILE)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def rows_of(folder: Path) -> list[tuple[int, str, float]]:
    with open(folder / "losses.csv", encoding="utf-8", newline="") as file:
        return [(int(r["step"]), r["name"], float(r["value"])) for r in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed. Read only."""
    folder = tmp_path_factory.mktemp("whole")
    train(Adversaries(), folder, CONFIG)
    return folder


@pytest.mark.parametrize("stop_at", [0, 4, 5, 11])
def test_stopped_and_resumed_equals_undisturbed_to_the_bit(
    whole: Path, tmp_path: Path, stop_at: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Adversaries(stop_at=stop_at), tmp_path, CONFIG)
    stopped = state_of(tmp_path)
    assert stopped["optimizer.maker/step/0.weight"].item() == stop_at + 1  # the update was finished
    assert equal(stopped, state_of(whole)) is (stop_at == 11)
    train(Adversaries(), tmp_path, CONFIG)
    assert equal(state_of(tmp_path), state_of(whole))
    assert len(state_of(whole)) == 4 + 4 + 2 + 3 * (4 + 2)


def test_a_run_that_crashed_goes_on_from_its_last_checkpoint(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk is gone"):
        train(Adversaries(fail_at=7), tmp_path, dataclasses.replace(CONFIG, checkpoint_seconds=0.0))
    assert state_of(tmp_path)["optimizer.maker/step/0.weight"].item() == 7
    train(Adversaries(), tmp_path, CONFIG)
    assert equal(state_of(tmp_path), state_of(whole))


def test_rows_of_updates_that_were_lost_go(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Adversaries(stop_at=3), tmp_path, CONFIG)  # the state and rows of update 4
    with pytest.raises(OSError, match="disk is gone"):
        train(Adversaries(fail_at=11), tmp_path, CONFIG)  # rows up to update 10, no state
    assert max(step for step, _, _ in rows_of(tmp_path)) == 10
    with open(tmp_path / "losses.csv", "a", encoding="utf-8") as file:
        file.write("1,maker,0.3")  # a line that was never finished
    with pytest.raises(OSError, match="disk is gone"):
        train(Adversaries(fail_at=4), tmp_path, CONFIG)
    assert rows_of(tmp_path) == [row for row in rows_of(whole) if row[0] <= 4]
    train(Adversaries(), tmp_path, CONFIG)
    assert rows_of(tmp_path) == rows_of(whole)


def test_rows_are_means_since_the_last_and_hold_the_validation(tmp_path: Path) -> None:
    train(Adversaries(), tmp_path / "each", dataclasses.replace(CONFIG, log_every=1))
    train(Adversaries(), tmp_path / "all", dataclasses.replace(CONFIG, log_every=12))
    each, means = rows_of(tmp_path / "each"), rows_of(tmp_path / "all")
    assert sorted({name for _, name, _ in each}) == [
        *("at", "critic", "held_out", "maker", "norm_critic", "norm_maker")
    ]
    assert [(s, v) for s, n, v in each if n == "at"] == [(4, 4.0), (8, 8.0), (12, 12.0)]
    assert {s for s, _, _ in means} == {12}
    for _, name, mean in means:
        values = [v for _, n, v in each if n == name]
        assert mean == pytest.approx(sum(values) / len(values), rel=1e-4)


class Blocks(Adversaries):
    """One module, with a hidden matrix where Muon looks for it."""

    def __init__(self, *, stop_at: int | None = None) -> None:
        super().__init__(stop_at=stop_at)
        block = nn.ModuleDict({"ff_in": self.maker[0], "ff_out": self.maker[2]})
        self.model = nn.ModuleList([block])

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"model": self.model}

    def losses(self, batch: Tensor, step: int) -> Iterator[Loss]:
        yield Loss("model", (self.maker(batch) - 1).square().mean(), {})

    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:
        return {}


def test_muon_moves_the_hidden_matrices_and_resumes_to_the_bit(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, optimizer="muon")
    start = {k: v.clone() for k, v in Blocks().model.state_dict().items()}
    train(Blocks(), tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        train(Blocks(stop_at=5), tmp_path / "cut", config)
    train(Blocks(), tmp_path / "cut", config)
    state = state_of(tmp_path / "whole")
    assert equal(state_of(tmp_path / "cut"), state)
    kept = {k.split("/", 2)[2]: k.split("/")[1] for k in state if k.startswith("optimizer.")}
    matrices, vectors = [[k for k, v in start.items() if v.ndim == n] for n in (2, 1)]
    assert {kept[k] for k in matrices} == {"momentum_buffer"}
    assert all(f"optimizer.model/exp_avg/{k}" in state for k in vectors)
    assert all(not torch.equal(state[f"model/{k}"], v) for k, v in start.items())


class Halves:
    """Eight rows a loss, or their two halves as batches of their own."""

    def __init__(self, count: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = nn.Linear(3, 2)
        self.count, self.ends = count, 0

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"model": self.model}

    def batch(self, step: int) -> Tensor:
        update, part = divmod(step, self.count)
        whole = torch.randn(8, 3, generator=step_generator(1, update))
        return whole.chunk(self.count)[part]

    def losses(self, batch: Tensor, step: int) -> Iterator[Loss]:
        value = self.model(batch).square().mean()
        yield Loss("model", value, {"loss": value.item()})
        self.ends += 1

    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:
        return {}


def test_an_update_takes_the_mean_of_its_batches(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, learning_rate=0.1)
    tasks = {count: Halves(count) for count in (1, 2, 4)}
    for count, task in tasks.items():
        train(task, tmp_path / str(count), dataclasses.replace(config, batches_per_update=count))
        assert task.ends == CONFIG.num_updates  # what follows the last loss is done once an update
    for count in (2, 4):
        for row, wanted in zip(
            rows_of(tmp_path / str(count)), rows_of(tmp_path / "1"), strict=True
        ):
            assert row == (*wanted[:2], pytest.approx(wanted[2], rel=1e-5))
    torch.testing.assert_close(tasks[4].model.weight, tasks[1].model.weight)
    moved = Halves(1).model.weight - tasks[1].model.weight
    assert moved.abs().max() > 0.05
    with pytest.raises(OptionError, match="batches_per_update is 0 and there are 1 processes"):
        train(Halves(1), tmp_path, dataclasses.replace(CONFIG, batches_per_update=0))


def test_a_finished_run_changes_nothing_more(whole: Path, tmp_path: Path) -> None:
    train(Adversaries(), tmp_path, CONFIG)
    before = (tmp_path / "losses.csv").read_bytes()
    ema = train(Adversaries(), tmp_path, CONFIG)
    assert equal(state_of(tmp_path), state_of(whole))
    assert (tmp_path / "losses.csv").read_bytes() == before
    assert all(torch.equal(p, state_of(whole)[f"ema/{k}"]) for k, p in ema.named_parameters())


def test_signal_handlers_come_back(whole: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(Adversaries(stop_at=1), tmp_path, CONFIG)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_truncated_state_stops_the_run_and_is_kept(tmp_path: Path) -> None:
    train(Adversaries(), tmp_path, CONFIG)
    data = (tmp_path / STATE_FILE).read_bytes()[:-100]
    (tmp_path / STATE_FILE).write_bytes(data)
    with pytest.raises(CheckpointFormatError, match=r"state\.safetensors is not a training state"):
        train(Adversaries(), tmp_path, CONFIG)
    assert (tmp_path / STATE_FILE).read_bytes() == data


@pytest.mark.slow
def test_a_real_process_that_is_told_to_end_saves_first(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
import torch
from torch import nn
from stepflow_tts.training.loop import Loss, LoopConfig, train
torch.set_num_threads(1)

class Slow:
    modules = {{"model": nn.Linear(2, 1)}}
    def batch(self, step):
        return torch.ones(1, 2)
    def losses(self, batch, step):
        yield Loss("model", self.modules["model"](batch).square().sum(), {{}})
        print("updated", flush=True)
        time.sleep(0.05)
    def validate(self, ema, step):
        return {{}}

train(Slow(), Path({str(tmp_path)!r}), LoopConfig(num_updates=100_000))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == "updated\n"
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=20)
    assert process.returncode != 0
    done = 3 + rest.count("updated")
    assert state_of(tmp_path)["optimizer.model/step/weight"].item() == done
    assert sorted(p.name for p in tmp_path.iterdir()) == ["losses.csv", STATE_FILE]


def test_learning_rate_by_hand() -> None:
    config = LoopConfig(
        num_updates=110, warmup_updates=10, learning_rate=1.0, final_learning_rate=0.2
    )
    found = [learning_rate(config, s) for s in (0, 4, 9, 10, 60, 85, 110, 500)]
    quarter = 0.2 + 0.8 * 0.5 * (1 + math.cos(0.75 * math.pi))
    assert found == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.6, quarter, 0.2, 0.2])
    no_warmup = dataclasses.replace(config, warmup_updates=0)
    assert learning_rate(no_warmup, 0) == 1.0


def test_ema_by_hand(tmp_path: Path) -> None:
    """Update s leaves min(decay, (1 + s) / (10 + s)) of the average."""
    task = Adversaries()
    average = task.maker[0].weight.detach().clone()
    config = dataclasses.replace(CONFIG, ema_decay=0.3, num_updates=5, learning_rate=0.1)
    ema = train(task, tmp_path, config)
    kept = [1 / 10, 2 / 11, 3 / 12, 0.3, 0.3]  # few enough that the first still shows
    for k, weight in zip(kept, task.weights, strict=True):
        average = k * average + (1 - k) * weight
    torch.testing.assert_close(dict(ema.named_parameters())["0.weight"], average)
    assert not ema.training


class Pull:
    """The gradient of every parameter is a constant."""

    def __init__(self, gradient: float) -> None:
        self.model, self.gradient = nn.Linear(3, 2), gradient
        nn.init.ones_(self.model.weight)
        nn.init.ones_(self.model.bias)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        return {"model": self.model}

    def batch(self, step: int) -> None:
        return None

    def losses(self, batch: None, step: int) -> Iterator[Loss]:
        value = self.gradient * (self.model.weight.sum() + self.model.bias.sum())
        yield Loss("model", value, {})

    def validate(self, ema: nn.Module, step: int) -> dict[str, float]:
        return {}


ONE = LoopConfig(num_updates=1, warmup_updates=5, learning_rate=0.5, weight_decay=0.1, log_every=1)


def test_the_first_update_by_hand(tmp_path: Path) -> None:
    """Adam's first step is the learning rate, here 0.5 / 5; matrices decay, biases do not."""
    task = Pull(100.0)
    train(task, tmp_path, ONE)
    weight, bias = 1 - 0.1 * 0.1 - 0.1, 1 - 0.1
    torch.testing.assert_close(task.model.weight.detach(), torch.full((2, 3), weight))
    torch.testing.assert_close(task.model.bias.detach(), torch.full((2,), bias))
    # eight gradients of 100: the norm is logged before it is clipped to 1
    assert rows_of(tmp_path) == [(1, "norm_model", pytest.approx(100 * math.sqrt(8), rel=1e-4))]
    state = state_of(tmp_path)
    moment, square = (state[f"optimizer.model/{f}/bias"] for f in ("exp_avg", "exp_avg_sq"))
    torch.testing.assert_close(moment, torch.full((2,), 0.1 / math.sqrt(8)))
    torch.testing.assert_close(square, torch.full((2,), 0.02 / 8))


class Poisoned(Adversaries):
    """The losses of some modules are not finite at some steps."""

    def __init__(self, value: float, modules: tuple[str, ...], steps: range) -> None:
        super().__init__()
        self.value, self.poisoned, self.steps = value, modules, steps

    def losses(self, batch: Tensor, step: int) -> Iterator[Loss]:
        for loss in super().losses(batch, step):
            bad = step in self.steps and loss.module in self.poisoned
            yield loss._replace(value=loss.value * self.value) if bad else loss


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_gradient_that_is_not_finite_is_skipped_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: float
) -> None:
    task = Poisoned(value, ("maker",), range(5, 6))
    train(task, tmp_path, CONFIG)
    assert torch.equal(task.weights[5], task.weights[4])
    assert not torch.equal(task.weights[6], task.weights[5])
    assert state_of(tmp_path)["optimizer.maker/step/0.weight"].item() == 11
    assert state_of(tmp_path)["optimizer.critic/step/weight"].item() == 12
    assert all(torch.isfinite(v).all() for v in state_of(tmp_path).values())
    assert caplog.messages.count("update 5 of maker skipped: its gradient is not finite") == 1


@pytest.mark.parametrize("modules", [("maker", "critic"), ("maker",)])
def test_gradients_that_stay_bad_stop_the_run(tmp_path: Path, modules: tuple[str, ...]) -> None:
    """Also when the other module goes on well."""
    config = dataclasses.replace(CONFIG, num_updates=40)
    with pytest.raises(OSError, match="disk is gone"):
        train(Adversaries(fail_at=3), tmp_path, dataclasses.replace(config, checkpoint_seconds=0.0))
    before = (tmp_path / STATE_FILE).read_bytes()
    with pytest.raises(FloatingPointError, match=f"not been finite for {MAX_SKIPPED} updates"):
        train(Poisoned(math.nan, modules, range(4, 40)), tmp_path, config)
    assert (tmp_path / STATE_FILE).read_bytes() == before


SPEAKERS = [
    next(n for n in (f"{kind} {i}" for i in range(1000)) if is_held_out(n) is held)
    for kind, held in (("ann", False), ("ben", False), ("kept back", True))
]


def write_manifest(folder: Path, voice_audio: Audio) -> Path:
    """Three utterances of each of three speakers; durations known, one more clip is broken."""
    folder.mkdir(parents=True)
    lines = []
    for s, speaker in enumerate(SPEAKERS):
        for i in range(3):
            seconds, name = 1.0 + 0.1 * i, f"{s}{i}.wav"
            samples = voice_audio(110.0 + 30 * s, seconds, 24_000)
            soundfile.write(folder / name, samples, 24_000)
            phonemes = "jˈɛs, maɪn"
            share = 1000 * seconds / len(phonemes)
            lines.append(
                {"id": f"{s}{i}", "audio": name, "speaker": speaker, "text": "Yes, mine."}
                | {"phonemes": phonemes, "durations_ms": [share] * len(phonemes)}
                | {"pad_ms": [0.0, 0.0]}
            )
    lines.append({"audio": "none.wav", "speaker": SPEAKERS[0], "text": "Lost."})
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return manifest


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, voice_audio: Audio) -> Path:
    """A prepared folder. Read only."""
    folder = tmp_path_factory.mktemp("corpus")
    counts = prepare([write_manifest(folder / "speech", voice_audio)], folder / "prepared")
    assert counts == {"written": 9, "unreadable": 1}
    return folder / "prepared"


DATA = DataConfig(batch_seconds=4.0, reference_seconds=(0.8, 1.0), long_reference_seconds=1.2)
FLOW = FlowConfig(mean=-4.0, std=3.0)


def teacher_task(prepared: Path, config: TeacherConfig | None = None) -> TeacherTask:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AcousticModel(preset("test"), conditioning="time", num_symbols=len(DEFAULT_SYMBOLS))
    sets = [Corpus([prepared], split, DATA, FLOW, 1) for split in ("train", "held_out")]
    config = config or TeacherConfig(validation_batches=1)
    return TeacherTask(model, sets[0], sets[1], config, FLOW, 1)


def test_a_teacher_resumes_to_the_bit(prepared: Path, tmp_path: Path) -> None:
    """The real task: batches, references, times, noise and dropout are all drawn again."""

    class Stopped(TeacherTask):
        def batch(self, step: int) -> Any:
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().batch(step)

    config = LoopConfig(num_updates=6, warmup_updates=2, log_every=1, validate_every=2)
    train(teacher_task(prepared), tmp_path / "whole", config)
    task = teacher_task(prepared)
    task.__class__ = Stopped
    with pytest.raises(KeyboardInterrupt):
        train(task, tmp_path / "cut", config)
    train(teacher_task(prepared), tmp_path / "cut", config)
    assert equal(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")


def test_the_loss_of_a_still_teacher_is_that_of_its_target(prepared: Path) -> None:
    """A new model's velocity is zero: what is left is data - noise on real frames and bands."""
    task = teacher_task(prepared)
    batch = task.batch(5)
    (loss,) = task.losses(batch, 5)
    generator = step_generator(1, 5)
    torch.rand(len(batch.x1), generator=generator)
    target = batch.x1 - torch.randn(batch.x1.shape, generator=generator)
    cells = [
        target[i][batch.frame_mask[i]][:, batch.band_mask[i]].flatten() for i in range(len(target))
    ]
    assert loss.logs["flow"] == pytest.approx(torch.cat(cells).square().mean().item(), rel=1e-5)
    frames = batch.x1.mean(-1) * FLOW.std + FLOW.mean > FLOW.log_floor + 1.5
    assert (frames & batch.frame_mask).any()
    voiced = [
        target[i][batch.frame_mask[i] & frames[i]][:, batch.band_mask[i]].flatten()
        for i in range(len(target))
    ]
    nats = torch.cat(voiced).square().mean().item() * 9
    assert loss.logs["voiced_nats2"] == pytest.approx(nats, rel=1e-5)
    value = loss.logs["flow"] + 0.1 * loss.logs["duration"]
    assert loss.value.item() == pytest.approx(value, rel=1e-5)


def test_a_batch_without_any_text_or_voice_can_be_learnt_from(prepared: Path) -> None:
    task = teacher_task(prepared, TeacherConfig(drop_all=1.0))
    with torch.no_grad():
        for p in task.model.parameters():
            p.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(p.numel()))
    (loss,) = task.losses(task.batch(0), 0)
    assert loss.logs["duration"] == 0.0
    loss.value.backward()  # type: ignore[no-untyped-call]
    gradients = {k: p.grad for k, p in task.model.named_parameters() if p.grad is not None}
    assert all(torch.isfinite(g).all() for g in gradients.values())
    assert gradients["null_condition"].abs().max() > 0
    for name in ("text.embedding.weight", "dit.voice_in.weight", "position.weight"):
        assert gradients[name].abs().max() == 0, name


def test_an_overfitted_teacher_has_learnt_flow_and_durations(
    prepared: Path, tmp_path: Path
) -> None:
    """A width of 32 cannot carry the noise of 200 numbers, so about 1 of the flow's loss stays."""
    config = LoopConfig(
        num_updates=45, warmup_updates=5, learning_rate=1e-2, log_every=1, validate_every=1000
    )
    train(teacher_task(prepared, TeacherConfig(0.0, 0.0)), tmp_path, config)
    flow, durations = (
        [v for _, n, v in rows_of(tmp_path) if n == name] for name in ("flow", "duration")
    )
    assert sum(flow[-5:]) - 5 < 0.3 * (sum(flow[:5]) - 5)
    assert sum(durations[-5:]) < 0.1 * sum(durations[:5])


def test_half_precision_gives_nearly_the_same_loss(prepared: Path, tmp_path: Path) -> None:
    config = LoopConfig(num_updates=4, warmup_updates=2, log_every=4, validate_every=4)
    rows = []
    for precision in ("float32", "bfloat16"):
        folder = tmp_path / precision
        train(teacher_task(prepared), folder, dataclasses.replace(config, precision=precision))
        assert {v.dtype for v in state_of(folder).values()} == {torch.float32}
        rows.append({name: value for _, name, value in rows_of(folder)})
    for name in ("flow", "duration", "voiced_nats2", "held_out_flow"):
        assert rows[0][name] == pytest.approx(rows[1][name], rel=0.02)
    assert rows[0]["duration"] != rows[1]["duration"]


def recipe_of(prepared: Path, texts: Path) -> dict[str, Any]:
    loop = {"num_updates": 2, "warmup_updates": 1, "log_every": 1, "validate_every": 1}
    return {
        "folders": [str(prepared)],
        "texts": [str(texts)],
        "threads": 1,
        "model": {"preset": "test"},
        "flow": dataclasses.asdict(FLOW),
        "data": {"batch_seconds": 3.0, "reference_seconds": [0.8, 1.0]}
        | {"long_reference_seconds": 1.2},
        "teacher": {"validation_batches": 1},
        "distill": {"validation_batches": 1},
        "trajectories": {"hours": 6 / 3600, "num_steps": 4},
        "vocoder": {"batch_size": 2, "crop_frames": 16}
        | {"vocoder": {"dim": 16, "intermediate_dim": 32, "num_layers": 1}},
        "teacher_loop": loop,
        "vocoder_loop": loop,
        "distill_loop": loop,
    }


def test_from_clips_to_speech(prepared: Path, tmp_path: Path, voice_audio: Audio) -> None:
    (tmp_path / "texts.txt").write_text("Yes, two.\n\nMine!\n", encoding="utf-8")
    tables, folder = recipe_of(prepared, tmp_path / "texts.txt"), tmp_path / "run"
    with pytest.raises(InputError, match="First run: stepflow-tts train teacher"):
        run("distill", tables, folder)
    run("teacher", tables, folder)
    student = folder / "checkpoints" / "student"
    assert (folder / "checkpoints" / "teacher" / "config.json").exists()
    assert not student.exists()
    run("distill", tables, folder)
    reference = voice_audio(130.0, 1.5, 24_000), 24_000
    for source in (student, student.with_name("teacher")):
        tts = StepFlowTTS.from_pretrained(source)
        speech = tts.synthesize("Yes, mine.", tts.encode_voice(reference[0], sample_rate=24_000))
        assert speech.sample_rate == 24_000
        assert len(speech.samples) > 2_000
        assert np.isfinite(speech.samples).all()
        assert 0.001 < np.abs(speech.samples).max() <= 1.0
    names = {name for _, name, _ in rows_of(folder / "student")}
    assert {"held_out_endpoint_1", "held_out_endpoint_2", "held_out_endpoint_4"} <= names

    finer: dict[str, Any] = {
        "student": "finer",
        "start_student": str(student),
        "start_student_share": 0.25,
    }
    finer["distill_loop"] = tables["distill_loop"] | {"learning_rate": 0.1}
    run("distill", tables | finer, folder)
    start, mixed = (
        read_tensors(path / "model.safetensors") for path in (student, student.with_name("finer"))
    )
    learnt = load_weights(folder / "finer" / "state.safetensors")
    assert any((learnt[name] - start[name].float()).abs().max() > 0.02 for name in start)
    for name, value in mixed.items():
        expected = 0.75 * learnt[name] + 0.25 * start[name].float()
        torch.testing.assert_close(value.float(), expected, atol=2e-3, rtol=2e-3)

    run("vocoder", tables, folder)
    assert (student / "vocoder.safetensors").exists()
    speech = StepFlowTTS.from_pretrained(student).synthesize(
        "Mine.", StepFlowTTS.from_pretrained(student).encode_voice(reference[0], sample_rate=24_000)
    )
    assert np.isfinite(speech.samples).all()

    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    for task in ("teacher", "distill", "export"):  # done already: nothing changes
        run(task, tables, folder)
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == before


ROWS: dict[str, dict[str, Any]] = {
    "endpoint": {"conditioning": "time", "distill": {"method": "endpoint"}},
    "consistency": {"conditioning": "time", "distill": {"method": "consistency"}},
    "table": {"conditioning": "table", "distill": {"guidance_weight": 0.01}},
}


def test_students_of_one_teacher_lie_beside_each_other_and_an_interrupted_one_resumes(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts.txt").write_text("Yes, two.\n", encoding="utf-8")
    tables, folder = recipe_of(prepared, tmp_path / "texts.txt"), tmp_path / "run"
    tables["distill_loop"] = tables["distill_loop"] | {"num_updates": 4}
    with pytest.raises(InputError, match=r"nothing to export\. First run: stepflow-tts train"):
        run("export", tables, folder)
    run("teacher", tables, folder)
    run("trajectories", tables, folder)
    made = {p: p.read_bytes() for p in sorted(folder.glob("trajectories*/*"))}
    assert len(made) == 6
    batch = DistillTask.batch

    def stopping(self: DistillTask, step: int) -> Any:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return batch(self, step)

    for name, row in ROWS.items():
        here = tables | row | {"student": name}
        here["distill"] = here["distill"] | {"validation_batches": 1}
        monkeypatch.setattr(DistillTask, "batch", stopping)
        with pytest.raises(KeyboardInterrupt):
            run("distill", here, folder)
        assert rows_of(folder / name)[-1][0] == 2
        monkeypatch.setattr(DistillTask, "batch", batch)
        run("distill", here, folder)
        run("distill", here | {"student": f"{name}-whole"}, folder)
        assert equal(state_of(folder / name), state_of(folder / f"{name}-whole")), name
        tts = StepFlowTTS.from_pretrained(folder / "checkpoints" / name)
        assert tts.config.conditioning == row["conditioning"]
    assert any(key.startswith("target/") for key in state_of(folder / "consistency"))
    assert not equal(state_of(folder / "endpoint"), state_of(folder / "consistency"))
    assert {p: p.read_bytes() for p in sorted(folder.glob("trajectories*/*"))} == made
    wrong = tables | {"trajectories": tables["trajectories"] | {"cfg_strength": 0.5}}
    with pytest.raises(OptionError, match=r"cfg_strength = 0\.7.* recipe says .* = 0\.5"):
        run("distill", wrong, folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teecher": {}}, "recipe has the unknown key 'teecher'"),
        ({"model": {"preset": "huge"}}, "no preset 'huge'"),
        ({"model": {"preset": "test", "width": 3}}, r"recipe\.model has the unknown key 'width'"),
        ({"conditioning": "adaln"}, r"recipe\.conditioning is 'adaln'; allowed: 'time', 'token'"),
        ({"student": "teacher"}, r"recipe\.student is 'teacher'; name a folder"),
        ({"student": "../up"}, r"recipe\.student is '\.\./up'"),
        ({"distill": {"method": "duel"}}, r"recipe\.distill\.method is 'duel'; allowed: 'dual'"),
        ({"distill": {"tau": 0.5}}, r"recipe\.distill has the unknown key 'tau'"),
        ({"distill": {"target_decay": "slow"}}, r"recipe\.distill\.target_decay is 'slow'"),
        ({"trajectories": {"precision": "half"}}, r"recipe\.trajectories\.precision is 'half'"),
        ({"distill_loop": {}}, r"recipe\.distill_loop lacks the key 'num_updates'"),
        ({"seed": 1.5}, r"recipe\.seed is 1\.5"),
        ({"data": {"reference_seconds": [1.0]}}, "must have 2 values"),
        ({"start_student_share": 0.5}, "start_student_share has no start_student"),
        ({"student_noise_scale": 0.0}, r"student_noise_scale is 0\.0; choose more than 0"),
        ({"refiner": {"num_layers": 0}}, "recipe.refiner has dim 160 and num_layers 0"),
    ],
)
def test_a_recipe_that_says_something_unknown_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    tables = recipe_of(tmp_path, tmp_path) | change
    with pytest.raises(OptionError, match=said):
        run("teacher", tables, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_preset_s_sizes_can_be_changed(tmp_path: Path) -> None:
    recipe = read_recipe(
        recipe_of(tmp_path, tmp_path) | {"model": {"preset": "base", "num_layers": 3}}
    )
    assert recipe.model == dataclasses.replace(preset("base"), num_layers=3)
    tables = recipe_of(tmp_path, tmp_path)
    del tables["model"]
    assert read_recipe(tables).model == preset("nano")

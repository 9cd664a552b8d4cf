"""The statistics of benchmarks/gradient_variance.py on gradients whose distribution is known."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stepflow_tts.config import CheckpointConfig, preset
from stepflow_tts.hub import build_model
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS
from stepflow_tts.training.checkpoint import save_state
from stepflow_tts.training.trajectory_data import Trajectory

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gradient_variance.py"


@pytest.fixture(scope="module")
def variance() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gradient_variance", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_by_hand(variance: ModuleType) -> None:
    """(1, 0), (0, 2), (2, 1): squares 1, 4, 5; products 0, 2, 2; the mean is (1, 1)."""
    gradients = [torch.tensor(g) for g in ([1.0, 0.0], [0.0, 2.0], [2.0, 1.0])]
    trace, signal = variance.statistics(variance.dot_products(gradients))
    assert signal == pytest.approx(4 / 3)
    # deviations (0, -1), (-1, 1), (1, 0): squares 1 + 2 + 1 over B - 1
    assert trace == pytest.approx(4 / 2)
    # the first twice, and the third: its product with itself is left out
    trace, signal = variance.statistics(variance.dot_products(gradients), torch.tensor([0, 0, 2]))
    assert (trace, signal) == (pytest.approx(7 / 3 - 2), pytest.approx(2.0))


def test_neither_number_has_a_bias(variance: ModuleType) -> None:
    """400 times 5 gradients of mean 0.5 in each of 4 places and deviation 1: 4 and 1 are true."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(400):
        gradients = list(0.5 + torch.randn(5, 4, generator=generator))
        found.append(variance.statistics(variance.dot_products(gradients)))
    trace, signal = torch.tensor(found).mean(dim=0).tolist()
    assert trace == pytest.approx(4.0, abs=0.2)
    assert signal == pytest.approx(1.0, abs=0.15)  # |mean|^2 would be 1.8


def test_a_method_of_half_the_deviation_has_a_quarter(
    variance: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variance, "RESAMPLES", 300)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(40, 50, generator=generator)
    products = {
        "endpoint": variance.dot_products(list(1 + noise)),
        "dual": variance.dot_products(list(1 + noise / 2)),
    }
    found = variance.summarize(products)
    for kind in ("trace", "relative"):
        ratio = found["dual_over_endpoint"][kind]
        assert ratio["value"] == pytest.approx(0.25, rel=0.1)
        assert 0.2 < ratio["low"] <= ratio["value"] <= ratio["high"] < 0.3
    trace = found["endpoint"]["trace"]
    assert trace["low"] < 50 < trace["high"]
    assert found["endpoint"]["signal"]["low"] < 50 < found["endpoint"]["signal"]["high"]


def test_on_a_trained_run(tmp_path: Path) -> None:
    """The command, on a teacher of the `test` preset whose trajectories are at hand."""
    toml = (
        'folders = ["none"]\nthreads = 1\n[model]\npreset = "test"\n[data]\nbatch_seconds = 1.0\n'
    )
    loops = "".join(f"[{n}_loop]\nnum_updates = 1\n" for n in ("teacher", "vocoder", "distill"))
    (tmp_path / "tiny.toml").write_text(toml + loops)
    generator = torch.Generator().manual_seed(0)
    sizes = CheckpointConfig(DEFAULT_SYMBOLS, conditioning="time", model=preset("test"))
    teacher = build_model(sizes)
    with torch.no_grad():
        for p in teacher.parameters():
            p.normal_(0.0, 0.1, generator=generator)
    (tmp_path / "teacher").mkdir()
    (tmp_path / "trajectories").mkdir()
    save_state(
        tmp_path / "teacher" / "state.safetensors",
        1,
        {"model": teacher},
        teacher,
        {"model": torch.optim.SGD(teacher.parameters())},
    )
    lines, offset = [], 0
    for i in range(4):
        t = Trajectory(offset, 30, 20, i, [0, 5, 6, 1], [2, 14, 12, 2])
        lines.append(json.dumps({k: getattr(t, k) for k in t.__slots__}) + "\n")
        offset += 100 * (20 + 4 * 30)
    states = torch.randn(offset, generator=generator).half().numpy().tobytes()
    (tmp_path / "trajectories" / "states.f16").write_bytes(states)
    (tmp_path / "trajectories" / "trajectories.jsonl").write_text("".join(lines))
    settings = {"noise_scale": 1.0, "cfg_strength": 0.7, "num_steps": 12}
    (tmp_path / "trajectories" / "settings.json").write_text(json.dumps(settings))
    options = "--states start --batches 3 --config tiny.toml --folder . --output variance.json"
    subprocess.run([sys.executable, str(SCRIPT), *options.split()], cwd=tmp_path, check=True)
    report = json.loads((tmp_path / "variance.json").read_text())
    found = report["states"]["start"]
    assert set(found) == {
        *("endpoint", "dual", "consistency"),
        *("dual_over_endpoint", "dual_over_consistency"),
    }
    for method in ("endpoint", "dual", "consistency"):
        assert found[method]["trace"]["value"] > 0
        assert found[method]["trace"]["low"] <= found[method]["trace"]["high"]
    assert report["batches"] == 3

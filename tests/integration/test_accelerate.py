"""Two processes of `accelerate launch` on the CPU do what one does."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from safetensors.torch import load_file

from stepflow_tts.errors import MissingDependencyError, OptionError
from stepflow_tts.training import processes
from stepflow_tts.training.prepare import is_held_out, prepare
from stepflow_tts.training.run import run

Audio = Callable[..., npt.NDArray[np.float32]]
SCRIPT = """
import json, os, sys
from pathlib import Path
from stepflow_tts.training.run import run
tables, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
for task in ("teacher", "vocoder"):
    run(task, tables, folder)
(folder / "rank {RANK} of {WORLD_SIZE}".format(**os.environ)).touch()
"""


@pytest.fixture
def tables(tmp_path: Path, voice_audio: Audio) -> dict[str, Any]:
    """A recipe whose updates take four batches; the vocoder's adversary comes in half way."""
    speakers = [f"speaker {i}" for i in range(100)]
    chosen = [next(s for s in speakers if is_held_out(s) is held) for held in (False, True)]
    lines = []
    (tmp_path / "speech").mkdir()
    for i in range(4):
        samples = voice_audio(110.0 + 20 * i, 1.0, 24_000)
        soundfile.write(tmp_path / "speech" / f"{i}.wav", samples, 24_000)
        lines.append(
            {"audio": f"{i}.wav", "speaker": chosen[i % 2], "text": "Yes.", "phonemes": "jˈɛs"}
            | {"durations_ms": [250.0] * 4, "pad_ms": [0.0, 0.0]}
        )
    manifest = tmp_path / "speech" / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    prepare([manifest], tmp_path / "prepared")
    loop = {"num_updates": 4, "warmup_updates": 1, "log_every": 1, "validate_every": 2}
    loop["batches_per_update"] = 4
    return {
        "folders": [str(tmp_path / "prepared")],
        "threads": 1,
        "model": {"preset": "test"},
        "data": {"batch_seconds": 2.0, "reference_seconds": [0.5, 0.6]}
        | {"long_reference_seconds": 0.7},
        "teacher": {"validation_batches": 1},
        "vocoder": {"batch_size": 1, "crop_frames": 16, "adversarial_from": 8}
        | {"vocoder": {"dim": 16, "intermediate_dim": 32, "num_layers": 1}},
        "teacher_loop": loop,
        "vocoder_loop": loop,
        "distill_loop": loop,
    }


def rows_of(folder: Path) -> dict[tuple[str, str], float]:
    with open(folder / "losses.csv", encoding="utf-8", newline="") as file:
        return {(r["step"], r["name"]): float(r["value"]) for r in csv.DictReader(file)}


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one(tables: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    (tmp_path / "recipe.json").write_text(json.dumps(tables))
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1"
    options = f"--mixed_precision no --dynamo_backend no --main_process_port 0 {tmp_path}/script.py"
    command = [sys.executable, *launch.split(), *options.split(), str(tmp_path / "recipe.json")]
    subprocess.run([*command, str(tmp_path / "two")], check=True, timeout=300)
    assert {p.name for p in (tmp_path / "two").glob("rank*")} == {"rank 0 of 2", "rank 1 of 2"}
    # Adam's first updates follow the sign of every gradient, and some of a fresh vocoder's are
    # nothing but rounding; so its losses drift apart a little.
    for task, tolerance in (("teacher", 1e-5), ("vocoder", 1e-3)):
        run(task, tables, tmp_path / "one")
        one, two = (rows_of(tmp_path / name / task) for name in ("one", "two"))
        assert two == {key: pytest.approx(value, rel=tolerance) for key, value in one.items()}
        states = [load_file(tmp_path / n / task / "state.safetensors") for n in ("one", "two")]
        assert states[0].keys() == states[1].keys()
    assert {"discriminator", "generator"} <= {name for _, name in two}
    assert (tmp_path / "two" / "checkpoints" / "teacher" / "vocoder.safetensors").exists()


def test_processes_need_their_package_and_their_share(
    tables: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match=r"pip install 'stepflow-tts\[train\]'"):
        run("teacher", tables, tmp_path / "run")

    class Three:
        process_index, device = 1, "cpu"

    monkeypatch.setattr(processes, "_accelerator", lambda device: Three())
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(OptionError, match="batches_per_update is 4 and there are 3 processes"):
        run("teacher", tables, tmp_path / "run")
    for task in ("trajectories", "export"):
        with pytest.raises(OptionError, match=f"{task} is for one process, and this run has 3"):
            run(task, tables, tmp_path / "run")
    assert not (tmp_path / "run").exists()

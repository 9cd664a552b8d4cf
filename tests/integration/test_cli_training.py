"""From recordings to a voice of one's own by commands alone, with networks of the `test` preset."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from stepflow_tts import StepFlowTTS
from stepflow_tts.cli import main
from stepflow_tts.training.prepare import is_held_out

PHONEMES = "hɛlˈoʊ wˈɜːld"
PAD_MS = 100.0

RECIPE = """
folders = ["prepared"]
texts = ["texts.txt"]
voices = "voices"
threads = 1
student_noise_scale = 0.2

[model]
preset = "test"

[data]
batch_seconds = 4.0

[teacher]
validation_batches = 1

[distill]
validation_batches = 1

[trajectories]
hours = 0.005
num_steps = 4

[vocoder]
batch_size = 2

[vocoder.vocoder]
dim = 16
intermediate_dim = 32
num_layers = 1

[teacher_loop]
num_updates = 2
log_every = 1
validate_every = 1

[vocoder_loop]
num_updates = 2
log_every = 1
validate_every = 1

[distill_loop]
num_updates = 2
log_every = 1
validate_every = 1

[refiner]
dim = 16
num_layers = 1
validation_batches = 1

[refiner_loop]
num_updates = 2
log_every = 1
validate_every = 1
"""


@pytest.fixture
def desk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    voice_audio: Callable[..., NDArray[np.float32]],
) -> Path:
    """A working directory with a corpus of three speakers, one of them kept back, and a recipe."""
    monkeypatch.chdir(tmp_path)
    assert [is_held_out(speaker) for speaker in ("s1", "s2", "s39")] == [False, False, True]
    (tmp_path / "corpus").mkdir()
    lines = []
    for i, speaker in enumerate(("s1", "s1", "s2", "s2", "s39", "s39")):
        audio = voice_audio(100.0 + 20 * i, 2.2)
        soundfile.write(tmp_path / "corpus" / f"{i}.wav", audio, 24000)
        entry = {
            "audio": f"{i}.wav",
            "speaker": speaker,
            "text": "Hello world",
            "phonemes": PHONEMES,
        }
        entry["durations_ms"] = [2000.0 / len(PHONEMES)] * len(PHONEMES)
        entry["pad_ms"] = [PAD_MS, PAD_MS]
        lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
    (tmp_path / "corpus" / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "texts.txt").write_text("A sentence without a recording.\n", encoding="utf-8")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    (tmp_path / "voices").mkdir()
    return tmp_path


def test_recordings_to_speech(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "corpus/manifest.jsonl", "--folder", "prepared"]) == 0
    assert "written: 6" in capsys.readouterr().out
    for task in ("teacher", "vocoder", "distill", "refiner"):
        assert main(["train", task, "--config", "tiny.toml"]) == 0
    checkpoints = desk / "runs" / "tiny" / "checkpoints"
    for kind in ("teacher", "student"):
        tts = StepFlowTTS.from_pretrained(checkpoints / kind)
        assert tts.config.model.dim == 32
        assert tts.encode_voice("corpus/0.wav").log_mel.shape[1] == tts.config.mel.n_mels
        assert tts.config.flow.noise_scale == (0.2 if kind == "student" else 1.0)
        assert tts.config.vocoder is not None
        assert tts.config.vocoder.refiner_layers == (kind == "student")
    assert tts.config.conditioning == "token"
    # A refiner is the student's alone: the vocoder's training goes on without it.
    recipe = RECIPE.replace("threads = 1", f'threads = 1\nstart_vocoder = "{checkpoints}/student"')
    (desk / "again.toml").write_text(recipe)
    assert main(["train", "vocoder", "--config", "again.toml"]) == 0
    assert main(["prepare", "corpus/manifest.jsonl", "--folder", "prepared"]) == 2
    assert "exists already" in capsys.readouterr().err


def test_tasks_out_of_order_and_wrong_recipes_are_exit_2(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "distill", "--config", "tiny.toml"]) == 2
    assert "train teacher" in capsys.readouterr().err
    assert main(["train", "refiner", "--config", "tiny.toml"]) == 2
    assert "train distill" in capsys.readouterr().err
    (desk / "typo.toml").write_text(RECIPE.replace("batch_size", "batchsize"))
    assert main(["train", "vocoder", "--config", "typo.toml"]) == 2
    assert "batchsize" in capsys.readouterr().err
    assert main(["prepare", "missing.jsonl", "--folder", "prepared"]) == 2
    assert "missing.jsonl" in capsys.readouterr().err
    assert main(["align", "missing"]) == 2
    assert "missing" in capsys.readouterr().err

"""Evaluation of a small checkpoint: what the hooks count, what is kept, and the command."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from stepflow_tts import StepFlowTTS
from stepflow_tts.cli import main
from stepflow_tts.errors import OptionError, TextError
from stepflow_tts.evaluation.lists import Utterance, read_pairs, read_recordings
from stepflow_tts.evaluation.report import summarize
from stepflow_tts.evaluation.run import System, evaluate_systems, load_system, speak
from stepflow_tts.evaluation.scoring import Scorers
from stepflow_tts.evaluation.speed import Settings, measure
from stepflow_tts.hub import load_checkpoint
from stepflow_tts.models.acoustic import count_parameters

TEXTS = ("Hello there.", "Good morning.", "Two sentences. This is the second.")
LONG = "This is a sentence of a good length, and it goes on. " * 4


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The package's log level is put back after the command."""
    logger = logging.getLogger("stepflow_tts")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def pairs(tmp_path: Path, voice_audio: Callable[..., npt.NDArray[np.float32]]) -> Path:
    """Three lines with two references in turn."""
    for name, pitch in (("z.wav", 200.0), ("a.wav", 100.0)):
        soundfile.write(tmp_path / name, voice_audio(pitch), 24_000)
    lines = zip(TEXTS, ("z.wav", "a.wav", "z.wav"), strict=True)
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{text}\t{name}\n" for text, name in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def student(checkpoint_folder: Path) -> System:
    """The small student at one step."""
    return load_system(str(checkpoint_folder), Settings(), name="student")


@pytest.mark.parametrize(
    ("num_steps", "cfg_strength", "nfe"),
    [(1, 0.0, 1), (2, 0.0, 2), (4, 0.0, 4), (1, 0.7, 2), (2, 0.7, 4), (4, 0.7, 8)],
)
def test_evaluations_are_counted(
    student: System, num_steps: int, cfg_strength: float, nfe: int
) -> None:
    settings = Settings(num_steps, cfg_strength)
    voice = student.tts.voices["anna"]
    for text, chunks in ((TEXTS[0], 1), (LONG, len(list(student.tts.stream(LONG, voice))))):
        speech, timing = measure(student.tts, student.model, text, voice, settings)
        assert (timing.chunks, timing.evaluations) == (chunks, chunks * nfe)
        assert timing.audio_seconds == speech.duration_seconds
    assert not student.model.dit._forward_hooks
    assert not student.model.step._forward_pre_hooks


def test_evaluations_of_the_teacher_are_counted(teacher_folder: Path) -> None:
    teacher = load_system(str(teacher_folder), Settings(10, 0.7))
    voice = teacher.tts.voices["anna"]
    _, timing = measure(teacher.tts, teacher.model, TEXTS[0], voice, teacher.settings)
    assert timing.evaluations == 20
    assert teacher.name == "teacher-n10-w0.7"


def test_seconds_go_to_the_part_that_spent_them(checkpoint_folder: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_folder)
    tts = StepFlowTTS(checkpoint, device="cpu")
    assert checkpoint.vocoder is not None

    def spend(seconds: float) -> Callable[..., None]:
        return lambda *_: time.sleep(seconds)

    checkpoint.model.text.register_forward_hook(spend(0.15))
    checkpoint.model.dit.blocks[0].register_forward_hook(spend(0.05))
    checkpoint.vocoder.backbone.register_forward_hook(spend(0.2))
    voice = tts.voices["anna"]
    tts.synthesize("Ready.", voice)  # the voice's keys and values
    _, timing = measure(tts, checkpoint.model, LONG, voice, Settings(num_steps=2))
    # The machine may only make it longer; less than by what the other parts spend.
    n = timing.chunks
    assert n > 1
    assert n * 0.1 <= timing.flow_seconds < n * 0.1 + 0.4
    assert n * 0.2 <= timing.vocoder_seconds
    assert timing.synthesis_seconds - timing.flow_seconds - timing.vocoder_seconds >= n * 0.15
    assert timing.rtf == timing.synthesis_seconds / timing.audio_seconds


def test_what_is_spoken_is_what_the_library_speaks_and_is_kept_in_order(
    student: System, checkpoint_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    other = load_system(str(checkpoint_folder), Settings(4, 0.5, 1.5, 7))
    utterances = read_pairs(pairs)
    made = speak([student, other], utterances, tmp_path / "out")
    tts = StepFlowTTS.from_pretrained(checkpoint_folder)
    for system, results in zip((student, other), made, strict=True):
        kept = read_recordings(tmp_path / "out" / system.name)
        assert kept == [utterance for utterance, _ in results]
        assert [u.text for u in kept] == list(TEXTS)
        for utterance, expected in zip(kept, utterances, strict=True):
            assert utterance.reference == expected.reference
            s = system.settings
            speech = tts.synthesize(
                str(utterance.text),
                utterance.reference,
                num_steps=s.num_steps,
                cfg_strength=s.cfg_strength,
                speed=s.speed,
                seed=s.seed,
            )
            assert utterance.wav is not None
            assert utterance.wav.read_bytes() == speech.to_bytes("wav")


def test_a_voice_is_computed_before_anything_is_timed_with_it(
    checkpoint_folder: Path, pairs: Path, tmp_path: Path
) -> None:
    system = load_system(str(checkpoint_folder), Settings())
    seconds = 0.5
    system.model.style.register_forward_hook(lambda *_: time.sleep(seconds))
    ((*made,),) = speak([system], read_pairs(pairs), tmp_path)
    assert max(timing.synthesis_seconds for _, timing in made) < seconds


def test_counts_and_scores_are_in_the_result(student: System, pairs: Path, tmp_path: Path) -> None:
    scorers = Scorers(recognize=lambda samples: "hello", dnsmos=lambda samples: {"dnsmos": 2.5})
    (result,) = evaluate_systems([student], read_pairs(pairs), scorers, tmp_path)
    summary = summarize(result.rows)
    assert result.parameters == count_parameters(student.model)
    assert result.vocoder_parameters == student.vocoder_parameters > 0
    assert result.settings["num_steps"] == 1
    assert summary["nfe"] == (1, 1, 1)
    assert summary["dnsmos"].value == 2.5
    assert summary["wer"].value == pytest.approx(100 * 9 / 10)  # one of the ten words was heard
    for r in result.rows:
        total = float(r["acoustic_seconds"]) + float(r["vocoder_seconds"])
        assert total == pytest.approx(float(r["synthesis_seconds"]))
        assert 0 < float(r["flow_seconds"]) < float(r["acoustic_seconds"])


def test_what_cannot_be_spoken_tells_its_number(
    student: System, pairs: Path, tmp_path: Path
) -> None:
    reference = read_pairs(pairs)[0].reference
    with pytest.raises(TextError, match=r"^Utterance 1 of the list: .*'\.\.\.'"):
        speak([student], [Utterance("...", reference)], tmp_path)
    with pytest.raises(OptionError, match="Two systems are called 'student'"):
        speak([student, student], read_pairs(pairs), tmp_path)


def test_settings_that_a_checkpoint_does_not_know_are_refused(checkpoint_folder: Path) -> None:
    with pytest.raises(OptionError, match="num_steps is 3"):
        load_system(str(checkpoint_folder), Settings(3))
    with pytest.raises(OptionError, match="cannot be that of a folder"):
        load_system(str(checkpoint_folder), Settings(), name="../up")


def test_command_compares_two_systems(
    checkpoint_folder: Path,
    teacher_folder: Path,
    pairs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, chart, keep = tmp_path / "report.json", tmp_path / "chart.png", tmp_path / "keep"
    command = ["evaluate", str(pairs), "--model", str(checkpoint_folder), "--metrics", "speed"]
    command += ["--limit", "2", "--json", str(out), "--chart", str(chart), "--keep", str(keep)]
    command += ["--versus", str(teacher_folder), "--versus-steps", "10"]
    assert main([*command, "--versus-cfg-strength", "0.7"]) == 0
    told = capsys.readouterr().out
    counted = [line.split()[2:] for line in told.splitlines() if line.startswith("NFE")]
    assert counted == [["1.0", "20.0"], ["-19.0"]]
    report = json.loads(out.read_text(encoding="utf-8"))
    first, second = report["systems"]
    assert (first["name"], second["name"]) == ("test-n1", "teacher-n10-w0.7")
    assert first["metrics"]["nfe"]["value"] == 1
    assert second["settings"] == {
        "model": "teacher",
        "num_steps": 10,
        "cfg_strength": 0.7,
        "speed": 1.0,
        "seed": 0,
    }
    assert second["parameters"] > first["parameters"]
    assert report["comparisons"][0]["speedup"]["rtf_flow"]["value"] > 1
    assert str(tmp_path) not in out.read_text(encoding="utf-8")
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert len(read_recordings(keep / "test-n1")) == 2
    # Shown again, and against another report.
    assert main(["evaluate", "--report", str(out), "--against", str(out)]) == 0
    again = capsys.readouterr().out
    assert "test-n1 minus teacher-n10-w0.7, paired" in again
    assert "test-n1 minus test-n1, paired" in again


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["pairs.tsv", "--metrics", "mos"], "There is no score 'mos'"),
        (["pairs.tsv", "--chart", "chart.pdf"], "does not end with .png"),
        (["pairs.tsv", "--json", "none/report.json"], "there is no folder none"),
        (["none.tsv"], "The list none.tsv cannot be read"),
        (["--wavs", ".", "--steps", "2"], "--steps has no use for recordings"),
        (["--wavs", ".", "--metrics", "speed"], "Recordings have no speed"),
        (["--report", "r.json", "--limit", "2"], "--limit has no use for a report"),
        (["--report", "r.json", "--json", "r.json"], "--json would replace the report"),
    ],
)
def test_command_refuses_what_it_cannot_do(
    checkpoint_folder: Path,
    pairs: Path,
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(pairs.parent)
    model = ["--model", str(checkpoint_folder)] if options[0] == "pairs.tsv" else []
    assert main(["evaluate", *options, *model]) == 2
    assert message in capsys.readouterr().err

"""The command line: what it writes, what it tells, and its exit codes."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from stepflow_tts import Speech, StepFlowTTS, cli
from stepflow_tts.cli import main

TEXT = "Hello there, how are you?"
LONG = "This is one of very many sentences. " * 2500


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(checkpoint_folder: Path) -> list[str]:
    """The option that picks the small checkpoint."""
    return ["--model", str(checkpoint_folder)]


def start(*arguments: str, **pipes: int) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "stepflow_tts", *arguments]
    environment = os.environ | {"PYTHONUNBUFFERED": ""}  # as many threads as here: the same samples
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, **pipes)


def test_say_writes_a_file_and_tells_where(
    model: list[str], desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", TEXT, "-o", "hello.wav", *model]) == 0
    samples, sample_rate = soundfile.read("hello.wav")
    assert sample_rate == 24000
    out, err = capsys.readouterr()
    assert out == ""
    told = err.splitlines()[-1]
    assert told.startswith(f"hello.wav: {len(samples) / sample_rate:.2f} s of speech in ")
    assert 0 < float(told.rpartition("RTF ")[2]) < 100
    assert [path.name for path in desk.iterdir()] == ["hello.wav"]


def test_say_equals_the_library(model: list[str], checkpoint_folder: Path) -> None:
    from stepflow_tts import StepFlowTTS

    options = ["--voice", "ben", "--steps", "2", "--speed", "1.5", "--seed", "7"]
    options += ["--cfg-strength", "0.5", "--language", "en-us"]
    text = "Two sentences. This is the second."
    assert main(["say", text, "-o", "cli.wav", *options, *model]) == 0
    speech = StepFlowTTS.from_pretrained(checkpoint_folder).synthesize(
        text, "ben", num_steps=2, cfg_strength=0.5, speed=1.5, seed=7, language="en-us"
    )
    assert Path("cli.wav").read_bytes() == speech.to_bytes("wav")


def test_text_comes_from_an_argument_a_file_or_standard_input(
    model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("text.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())  # as Windows editors begin UTF-8
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert main(["say", TEXT, "-o", "argument.wav", *model]) == 0
    assert main(["say", "--file", "text.txt", "-o", "file.wav", *model]) == 0
    assert main(["say", "-", "-o", "input.wav", *model]) == 0
    assert len({Path(f"{name}.wav").read_bytes() for name in ("argument", "file", "input")}) == 1


def test_random_seed_is_told_and_repeats(
    model: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["say", TEXT, "-o", "a.wav", "--seed", "random", *model]) == 0
    seed = capsys.readouterr().err.split("seed ")[-1].strip()
    assert main(["say", TEXT, "-o", "b.wav", "--seed", seed, *model]) == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()


def test_long_text_tells_how_far_it_is(
    model: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "PROGRESS_SECONDS", 0.0)
    assert main(["say", "One.\nTwo.\nThree.", *model]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" chunks")[0] for line in lines[:2]] == ["1 of 3", "2 of 3"]
    assert lines[2].startswith("speech.wav: ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["say", ""], "text"),
        (["say", " \n "], "text"),
        (["say", TEXT, "--voice", "nobody"], "anna, ben"),
        (["say", TEXT, "--voice", "missing.wav"], "missing.wav"),
        (["say", TEXT, "--voice", "not_audio.wav"], "not_audio.wav"),
        (["say", TEXT, "--steps", "3"], "1, 2, 4"),
        (["say", TEXT, "--speed", "nan"], "nan"),
        (["say", TEXT, "--speed", "0"], "0.5 to 2.0"),
        (["say", TEXT, "--seed", "-1"], "-1"),
        (["say", TEXT, "--language", "tlh"], "tlh"),
        (["say", TEXT, "--device", "abacus"], "abacus"),
        (["say", TEXT, "-o", "hello.wma"], ".wav"),
        (["say", TEXT, "-o", "hello"], ".wav"),
        (["say", TEXT, "-o", "missing/hello.wav"], "missing"),
        (["say", "--file", "missing.txt"], "missing.txt"),
        (["say", "--file", "latin1.txt"], "iconv"),
    ],
)
def test_bad_input_is_exit_2_in_one_line_and_leaves_nothing(
    model: list[str],
    desk: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    Path("latin1.txt").write_bytes("Café".encode("latin-1"))
    Path("not_audio.wav").write_text("This is no sound.")
    before = set(desk.iterdir())
    assert main([*arguments, *model]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert told in err
    assert "Traceback" not in err
    assert set(desk.iterdir()) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["sing"],
        ["say"],
        ["say", TEXT, "--file", "text.txt"],
        ["say", TEXT, "--steps", "one"],
        ["say", TEXT, "--seed", "now"],
        ["info", "--preset", "base", "--model", "folder"],
        ["train", "teacher"],
        ["train", "student", "--config", "x.toml"],
    ],
)
def test_wrong_usage_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert "usage: stepflow-tts" in capsys.readouterr().err


def test_damaged_checkpoint_is_exit_1(
    checkpoint_copy: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = checkpoint_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(["say", TEXT, "--model", str(checkpoint_copy)]) == 1
    assert "model.safetensors" in capsys.readouterr().err
    assert not list(desk.glob("*.wav"))


def test_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["say", TEXT, "--model", "./no", "--debug"],
        ["--debug", "info", "--model", "./no"],
    ):
        assert main(arguments) == 1
        assert "Traceback" in capsys.readouterr().err
    assert main(["info", "--model", "./no"]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_unforeseen_failure_is_exit_1_and_points_to_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(args: object) -> None:
        raise RuntimeError("out of tune")

    monkeypatch.setattr(cli, "_voices", break_down)
    assert main(["voices"]) == 1
    err = capsys.readouterr().err
    assert "RuntimeError: out of tune" in err
    assert "--debug" in err
    assert "Traceback" not in err


def test_voices_are_listed(model: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["voices", *model]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["anna", "en-us"], ["ben", "en-gb"]]


def test_info_of_the_paper_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--preset", "base", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert 153.5e6 <= info["teacher_parameters"] <= 154.5e6
    assert 117.5e6 <= info["student_parameters"] <= 118.5e6
    assert sum(info["teacher_parts"].values()) == info["teacher_parameters"]
    assert sum(info["student_parts"].values()) == info["student_parameters"]
    assert info["sample_rate"] == 24000
    assert info["step_tokens"] == 7  # (1, 0), (2, 0), (2, 1), (4, 0) ... (4, 3)
    assert info["step_token_parameters"] == 7 * 512


def test_info_of_a_checkpoint(
    model: list[str], checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    assert main(["info", "--json", *model]) == 0
    info = json.loads(capsys.readouterr().out)
    stored = sum(x.numel() for x in load_file(checkpoint_folder / "model.safetensors").values())
    assert info["student_parameters"] == stored
    assert main(["info", *model]) == 0
    assert f"student parameters {stored:>19,}" in capsys.readouterr().out


def test_info_of_an_unknown_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--preset", "huge"]) == 2
    assert "base, nano, test" in capsys.readouterr().err


@pytest.mark.parametrize("recipe", ["missing.toml", "broken.toml"])
def test_unreadable_recipe_is_exit_2(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("broken.toml").write_text("[train\n")
    assert main(["train", "teacher", "--config", recipe]) == 2
    assert recipe in capsys.readouterr().err


def test_pipes(model: list[str]) -> None:
    with start("say", "-", "-o", "-", *model, stdin=-1, stdout=-1) as process:
        out, err = process.communicate(TEXT.encode())
    assert process.returncode == 0
    assert main(["say", TEXT, "-o", "same.wav", *model]) == 0
    piped, _ = soundfile.read(io.BytesIO(out), dtype="int16")
    saved, _ = soundfile.read("same.wav", dtype="int16")
    # Another process may place its arrays differently, which can move a sum in its last bit.
    assert len(out) == Path("same.wav").stat().st_size
    assert abs(piped.astype(int) - saved.astype(int)).max() <= 1
    assert err.decode().splitlines()[-1].startswith("-: ")
    assert len(err.decode().splitlines()) == 1


def test_reader_that_leaves_is_no_traceback(model: list[str]) -> None:
    with start("voices", *model, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read().decode()
    assert process.returncode == 1
    assert err == ""


def test_interrupted_is_exit_130_and_leaves_no_unfinished_file(
    model: list[str], desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A shell that starts us in the background has SIGINT ignored, and then so have we.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        code = main(["say", LONG, *model])
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert capsys.readouterr().err.endswith("Interrupted.\n")
    assert {path.name for path in desk.iterdir()} <= {"speech.partial.wav"}


def test_what_was_spoken_before_an_interrupt_is_kept(
    checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tts = StepFlowTTS.from_pretrained(checkpoint_folder)
    spoken = list(tts.stream(f"{TEXT} And here is some more of it."))

    def pieces() -> Iterator[Speech]:
        yield from spoken
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cli._gather(pieces(), TEXT, "plain", "book.mp3")
    samples, _ = soundfile.read("book.partial.wav", dtype="float32")
    assert len(spoken) == 2
    assert len(samples) == sum(len(piece.samples) for piece in spoken)
    assert "book.partial.wav" in capsys.readouterr().err

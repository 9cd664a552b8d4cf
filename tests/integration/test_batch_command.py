"""The command `batch`: each row ends up in the manifest or among the rejects, whatever happens."""

import csv
import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from stepflow_tts import StepFlowTTS
from stepflow_tts.cli import main
from stepflow_tts.jobs import rows
from stepflow_tts.training.layouts import find_sources

Audio = Callable[..., npt.NDArray[np.float32]]
PATIENCE_SECONDS = 300.0  # on a busy machine


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_jsonl(path: str, *found: dict[str, Any]) -> None:
    """Rows."""
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a manifest."""
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def members(path: Path) -> dict[str, bytes]:
    """The files in a shard."""
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("none.jsonl", None, "There is no file none.jsonl"),
        ("rows.xlsx", b"", "must be one of .jsonl, .csv, .parquet"),
        ("empty.jsonl", b"\n", "has no rows"),
        (
            "lacks.csv",
            b"id,sentence\n1,Hi.\n",
            "has no column 'text'. Its columns: 'id', 'sentence'",
        ),
        ("broken.csv", b'id,text\n1,"Hi"x\n', "is no CSV at line 2"),
        ("rows.parquet", b"This is none.", "rows.parquet cannot be read"),
        ("folder.jsonl", "folder", "There is no file folder.jsonl"),
    ],
)
def test_an_input_that_cannot_be_read_is_exit_2(
    name: str, content: bytes | str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="the extra [ray] is not installed")
    if isinstance(content, bytes):
        Path(name).write_bytes(content)
    elif content == "folder":
        Path(name).mkdir()
    assert main(["batch", name, "out"]) == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize(("package", "argument"), [("pyarrow", "x.parquet"), ("ray", "x.jsonl")])
def test_a_missing_extra_is_told(
    package: str,
    argument: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path(argument).write_text('{"id": 1, "text": "Hi."}')
    monkeypatch.setitem(sys.modules, package, None)  # to be imported is an ImportError
    assert main(["batch", argument, "out", "--ray"]) == 1
    assert rows.PIP_COMMAND in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--shard-rows", "0"], "--shard-rows is 0"),
        (["--processes", "0"], "--processes is 0"),
        (["--format", "wma"], "'wma'"),
        (["--voice", "nobody"], "anna, ben"),
        (["--steps", "3"], "1, 2, 4"),
        (["--speed", "9"], "0.5 to 2.0"),
    ],
)
def test_what_every_row_would_be_refused_for_is_refused_at_once(
    checkpoint_folder: Path,
    options: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_jsonl("rows.jsonl", {"id": 1, "text": "Hi."})
    model = ["--model", str(checkpoint_folder)]
    assert main(["batch", "rows.jsonl", "out", *options, *model]) == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


GOOD = (("a.b/ü", "Hello there.", "me.wav"), ("2", "Good morning.", "ben"), ("3", "Yes.", ""))
BAD = {
    "4": ("...", "", "Give at least one word"),
    "5": ("Hi.", "nobody", "There is no voice 'nobody'"),
    "6": ("Hi.", "missing.wav", "There is no voice 'missing.wav'"),
    "7": ("Hi.", "noise.wav", "noise.wav"),
    "8": ("Hi.", "n" * 300, "There is no voice"),
    "2": ("Twice.", "", "The id is that of row 2, too."),
}
OPTIONS = ("--format", "wav", "--steps", "2", "--speed", "1.5", "--seed", "7", "--voice", "anna")


@dataclass(frozen=True)
class Spoken:
    """A job of GOOD and BAD rows that is done; whoever changes it puts it back."""

    command: list[str]
    input: Path
    output: Path
    told: str

    def stamps(self) -> dict[Path, int]:
        """When each file of the shards was written."""
        return {path: path.stat().st_mtime_ns for path in (self.output / "shards").iterdir()}


@pytest.fixture(scope="module")
def spoken(
    checkpoint_folder: Path, voice_audio: Audio, tmp_path_factory: pytest.TempPathFactory
) -> Spoken:
    folder = tmp_path_factory.mktemp("spoken")
    soundfile.write(folder / "me.wav", voice_audio(150.0), 24_000)
    (folder / "noise.wav").write_text("This is no sound.")
    source, output = folder / "rows.csv", folder / "out"
    with open(source, "w", encoding="utf-8", newline="") as file:
        lines = [*GOOD, *((id, text, voice) for id, (text, voice, _) in BAD.items())]
        csv.writer(file).writerows([("id", "text", "voice"), *lines])
    command = ["batch", str(source), str(output), "--shard-rows", "2", "--processes", "1"]
    command += [*OPTIONS, "--model", str(checkpoint_folder)]
    with redirect_stderr(io.StringIO()) as err:
        assert main(command) == 0
    return Spoken(command, source, output, err.getvalue())


def test_every_row_is_spoken_or_rejected_with_a_reason(spoken: Spoken) -> None:
    assert "out/manifest.jsonl: 3 rows" in spoken.told
    assert "out/rejects.jsonl: 6 rows" in spoken.told
    manifest = read_jsonl(spoken.output / "manifest.jsonl")
    assert [(x["id"], x["text"], x["voice"]) for x in manifest] == [
        (id, text, voice or "anna") for id, text, voice in GOOD
    ]
    rejects = read_jsonl(spoken.output / "rejects.jsonl")
    assert [line["id"] for line in rejects] == list(BAD)
    for line in rejects:
        text, voice, reason = BAD[line["id"]]
        assert (line["text"], line["voice"]) == (text, voice or "anna")
        assert reason in line["reason"]


def test_rows_are_spoken_as_the_library_does(spoken: Spoken, checkpoint_folder: Path) -> None:
    tts = StepFlowTTS.from_pretrained(checkpoint_folder)
    manifest = read_jsonl(spoken.output / "manifest.jsonl")
    assert [line["audio"] for line in manifest] == ["a%2Eb%2F%C3%BC.wav", "2.wav", "3.wav"]
    for line, (id, text, voice) in zip(manifest, GOOD, strict=True):
        source = spoken.input.parent / voice if voice == "me.wav" else voice or "anna"
        speech = tts.synthesize(text, source, num_steps=2, speed=1.5, seed=7)
        assert line["duration_seconds"] == speech.duration_seconds
        files = members(spoken.output / line["shard"])
        ours, _ = soundfile.read(io.BytesIO(files[line["audio"]]), dtype="int16")
        alone, _ = soundfile.read(io.BytesIO(speech.to_bytes("wav")), dtype="int16")
        assert abs(ours.astype(int) - alone.astype(int)).max() <= 1  # as in two processes
        about = json.loads(files[line["audio"].replace(".wav", ".json")])
        assert (about["id"], about["text"], about["speaker"]) == (id, text, voice or "anna")
        assert [word["text"] for word in about["words"]] == text.split()


def test_training_reads_the_shards(spoken: Spoken) -> None:
    found = [
        (recording.fields["text"], recording.fields["speaker"])
        for source in find_sources(spoken.output / "shards")
        for recording in source.read(source.path)
    ]
    assert found == [(text, voice or "anna") for _, text, voice in GOOD]


def test_done_is_done_and_other_settings_are_another_job(
    spoken: Spoken, capsys: pytest.CaptureFixture[str]
) -> None:
    before = spoken.stamps()
    assert main(spoken.command) == 0
    assert spoken.stamps() == before
    capsys.readouterr()
    assert main([*spoken.command, "--steps", "4", "--shard-rows", "3"]) == 2
    told = "shard_rows was 2 and is 3; num_steps was 2 and is 4"
    assert told in capsys.readouterr().err
    content = spoken.input.read_bytes()
    spoken.input.write_bytes(content + b"9,More.,\n")
    assert main(spoken.command) == 2
    assert "input_sha256 was" in capsys.readouterr().err
    spoken.input.write_bytes(content)
    elsewhere = [*spoken.command[:2], str(spoken.input.parent), *spoken.command[3:]]
    assert main(elsewhere) == 2
    assert "is of no job but holds 'me.wav'" in capsys.readouterr().err


def test_shards_that_are_not_what_they_were_are_told(
    spoken: Spoken, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = (spoken.output / "manifest.jsonl").read_bytes()
    lines = spoken.output / "shards" / "shard-000001.jsonl"
    kept = lines.read_bytes()
    lines.write_bytes(kept + kept)
    assert main(spoken.command) == 1
    assert "3 ids and 7 rejected rows, of 9" in capsys.readouterr().err
    lines.write_bytes(kept)
    audio = lines.with_suffix(".tar").rename(spoken.output / "elsewhere")
    assert main(spoken.command) == 1
    assert "Delete shard-000001.jsonl" in capsys.readouterr().err
    audio.rename(lines.with_suffix(".tar"))
    assert (spoken.output / "manifest.jsonl").read_bytes() == manifest


@pytest.mark.slow
def test_no_row_at_all_is_exit_2(
    checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl("rows.jsonl", {"id": 1, "text": "..."}, {"id": 2})
    model = ["--model", str(checkpoint_folder), "--processes", "1"]
    assert main(["batch", "rows.jsonl", "out", *model]) == 2
    assert "No row could be spoken; out/rejects.jsonl" in capsys.readouterr().err
    assert len(read_jsonl("out/rejects.jsonl")) == 2
    assert Path("out/manifest.jsonl").read_bytes() == b""


def wait_until(holds: Callable[[], bool]) -> None:
    """Return when it does."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def children(pid: int) -> Iterator[int]:
    """The processes that a process has started."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's /proc")
def test_a_job_that_is_killed_goes_on_where_it_was(
    checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {f"row {i}": f"This is row number {i} of some." for i in range(60)}
    write_jsonl("rows.jsonl", *({"id": id, "text": text} for id, text in texts.items()))
    options = ["rows.jsonl", "out", "--shard-rows", "3", "--processes", "1"]
    options += ["--model", str(checkpoint_folder)]
    command = [sys.executable, "-m", "stepflow_tts", "batch", *options]
    shards = Path("out/shards")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: len(list(shards.glob("*.jsonl"))) >= 2)
            speaking = list(children(process.pid))
        finally:
            process.kill()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in speaking))
    done = {path: path.stat().st_mtime_ns for path in shards.glob("*.jsonl")}
    assert speaking
    assert 2 <= len(done) < 20
    assert not Path("out/manifest.jsonl").exists()
    (shards / ".0123456789abcdef.tmp").write_bytes(b"half of a shard")
    last = max(done)  # as if it had been killed between a shard's audio and its lines
    last.unlink()
    del done[last]

    assert main(["batch", *options]) == 0
    assert "out/manifest.jsonl: 60 rows" in capsys.readouterr().err
    manifest = read_jsonl("out/manifest.jsonl")
    assert {line["id"]: line["text"] for line in manifest} == texts
    assert [line["row"] for line in manifest] == list(range(1, 61))
    assert {path: path.stat().st_mtime_ns for path in done} == done
    names = {p.name for p in shards.iterdir()}
    assert names == {f"shard-{i:06d}.{end}" for i in range(20) for end in ("tar", "jsonl")}
    for shard in sorted(shards.glob("*.tar")):
        for name, data in members(shard).items():
            if name.endswith(".flac"):
                samples, _ = soundfile.read(io.BytesIO(data))
                expected = next(x for x in manifest if x["audio"] == name)["duration_seconds"]
                assert len(samples) / 24_000 == expected


@pytest.mark.slow
def test_a_ray_pipeline_speaks_every_row_once(
    checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    texts = {str(i): f"This is row number {i}." for i in range(12)}
    found = [{"id": id, "text": text} for id, text in texts.items()]
    write_jsonl("rows.jsonl", *found, {"id": "bad", "text": "..."})
    command = ["batch", "rows.jsonl", "out", "--shard-rows", "2", "--ray", "--processes", "1"]
    try:
        assert main([*command, "--model", str(checkpoint_folder)]) == 0
        manifest = read_jsonl("out/manifest.jsonl")
        assert {line["id"]: line["text"] for line in manifest} == texts
        assert [line["id"] for line in manifest] == list(texts)
        assert [line["id"] for line in read_jsonl("out/rejects.jsonl")] == ["bad"]
        # What ends the work of an actor is told as if it had been done here.
        Path("out/shards/shard-000000.jsonl").unlink()
        Path("out/shards/shard-000000.tar").unlink()
        Path("out/shards/shard-000000.tar").mkdir()
        capsys.readouterr()
        assert main([*command, "--model", str(checkpoint_folder)]) == 2
        assert "it is a folder or a device" in capsys.readouterr().err
    finally:
        ray.shutdown()

"""Every example and notebook runs and does what its first line says."""

import io
import os
import re
import runpy
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import soundfile

from stepflow_tts import StepFlowTTS

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted((EXAMPLES / "notebooks").glob("*.ipynb"))
RATE = 24_000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a voice, a few seconds long."""
    speech = StepFlowTTS.from_pretrained().synthesize("This is my own voice, some words of it.")
    return speech.save(tmp_path_factory.mktemp("recording") / "me.flac")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: object) -> None:
    """The example as from the command line, in this process, which has PyTorch loaded."""
    path = EXAMPLES / script
    monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
    runpy.run_path(str(path), run_name="__main__")


def test_quickstart(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, "quickstart.py")
    assert soundfile.info(desk / "quickstart.wav").duration > 1.0


def test_clone_a_voice(desk: Path, monkeypatch: pytest.MonkeyPatch, recording: Path) -> None:
    run(monkeypatch, "clone_a_voice.py", recording, recording)
    assert (desk / "me.safetensors").stat().st_size < 150_000
    for name in ("cloned_1.wav", "cloned_2.wav"):
        assert soundfile.info(desk / name).duration > 0.5


def test_llm_to_speech(
    desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        "Once upon a time there was a small model. It spoke before it had read all of it.\n\nEnd.\n"
    )
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    run(monkeypatch, "llm_to_speech.py", "answer.wav")
    samples, rate = soundfile.read(desk / "answer.wav", dtype="float32")
    whole = StepFlowTTS.from_pretrained().synthesize(text)
    assert rate == whole.sample_rate
    assert np.abs(samples - whole.samples).max() < 1e-4
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert all(re.match(r"after \d+\.\d\d s: \w", line) for line in lines)


def test_subtitles(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (desk / "text.txt").write_text("It costs $5.2M. Nobody paid.", encoding="utf-8")
    run(monkeypatch, "subtitles.py", "text.txt", "speech.mp3")
    assert soundfile.info(desk / "speech.mp3").duration > 1.0
    subtitles = (desk / "speech.srt").read_text(encoding="utf-8")
    assert subtitles.startswith("1\n00:00:00,")
    assert "$5.2M" in subtitles
    assert (desk / "speech.vtt").read_text(encoding="utf-8").startswith("WEBVTT")


PAGE = "<html><head><title>Not read</title></head><body>{}</body></html>"


def write_epub(path: Path, pages: dict[str, str], encrypted: str = "") -> Path:
    """A book of XHTML pages in this order; one whose name has "nav" is its table of contents."""
    manifest = "".join(
        f'<item id="i{i}" href="text/{name.replace(" ", "%20")}" media-type="application/xhtml+xml"'
        + (' properties="nav"/>' if "nav" in name else "/>")
        for i, name in enumerate(pages)
    )
    spine = "".join(f'<itemref idref="i{i}"/>' for i in range(len(pages)))
    with zipfile.ZipFile(path, "w") as book:
        book.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OPS/book.opf"/></rootfiles></container>',
        )
        book.writestr(
            "OPS/book.opf",
            '<package xmlns="http://www.idpf.org/2007/opf">'
            f"<manifest>{manifest}</manifest><spine>{spine}</spine></package>",
        )
        if encrypted:
            book.writestr("META-INF/encryption.xml", f'<e URI="OPS/text/{encrypted}"/>')
        for name, body in pages.items():
            book.writestr(f"OPS/text/{name}", PAGE.format(body))
    return path


@pytest.fixture(scope="module")
def reader() -> dict[str, Any]:
    """The names of read_a_book.py."""
    return runpy.run_path(str(EXAMPLES / "read_a_book.py"))


def test_an_epub_is_read_in_its_order(reader: dict[str, Any], tmp_path: Path) -> None:
    pages = {
        "nav.xhtml": "<p>Contents</p>",
        "cover.xhtml": '<img src="cover.jpg"/>',
        "b one.xhtml": "<h2>The <i>Sea</i></h2><p>Salt &amp;\n water.</p><script>x()</script>",
        "a.xhtml": "<div>No heading<br/>but &#8220;lines&#8221;.</div><style>p {}</style>",
    }
    chapters = list(reader["epub_chapters"](write_epub(tmp_path / "a.epub", pages)))
    assert chapters == [
        ("The Sea", ["The Sea", "Salt & water."]),
        ("No heading", ["No heading", "but “lines”."]),
    ]


def test_a_protected_epub_says_so(reader: dict[str, Any], tmp_path: Path) -> None:
    path = write_epub(tmp_path / "a.epub", {"a.xhtml": "<p>A</p>"}, encrypted="a.xhtml")
    with pytest.raises(SystemExit, match="protected"):
        list(reader["epub_chapters"](path))


def test_a_text_is_divided_at_its_headings(reader: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text(
        "A\ntitle\n\nChapter 1\n\nPart of me\nwas  here.\n\nCHAPTER II. The End\n\nYes.\n\n\nEPILOGUE\n\nEnd.\n"
    )
    assert list(reader["text_chapters"](path)) == [
        ("story", ["A title"]),
        ("Chapter 1", ["Chapter 1", "Part of me was here."]),
        ("CHAPTER II. The End", ["CHAPTER II. The End", "Yes."]),
        ("EPILOGUE", ["EPILOGUE", "End."]),
    ]


def test_a_book_is_read_and_goes_on_where_it_was_stopped(
    checkpoint_folder: Path,
    desk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = 40
    paragraphs = "".join(f"<p>This is paragraph {i} of them.</p>" for i in range(count))
    pages = {
        "1.xhtml": f"<h1>One: the first</h1>{paragraphs}<p>***</p>",
        "2.xhtml": "<h1>Two</h1><p>It is over.</p>",
    }
    book = write_epub(desk / "book.epub", pages)
    arguments = [book, desk / "out", "--model", checkpoint_folder, "--voice", "ben"]
    command = [sys.executable, EXAMPLES / "read_a_book.py", *arguments]
    parts = desk / "out" / ".parts"
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    ) as process:
        while not list(parts.glob("*.flac")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "The same command goes on from here." in told
    kept = sorted(parts.glob("*.flac"), key=os.path.getmtime)
    assert 1 <= len(kept) < count
    mark = np.full(RATE, 0.25, dtype=np.float32)  # a part that would not be made again like this
    soundfile.write(kept[0], mark, RATE)

    run(monkeypatch, "read_a_book.py", *arguments)

    assert sorted(path.name for path in (desk / "out").iterdir()) == [
        "01 One the first.flac",
        "02 Two.flac",
    ]
    first, rate = soundfile.read(desk / "out" / "01 One the first.flac", dtype="float32")
    assert rate == RATE
    assert np.abs(first[:RATE] - 0.25).max() < 1e-3
    assert np.abs(first[RATE : RATE + RATE // 2]).max() == 0.0
    assert len(first) > count * RATE  # one paragraph more with their pauses
    assert "left out" in capsys.readouterr().err
    before = (desk / "out" / "02 Two.flac").stat().st_mtime_ns
    run(monkeypatch, "read_a_book.py", *arguments)
    assert (desk / "out" / "02 Two.flac").stat().st_mtime_ns == before


@pytest.fixture(scope="module")
def notebook_tools() -> dict[str, Any]:
    """The names of notebooks/execute.py."""
    return runpy.run_path(str(EXAMPLES / "notebooks" / "execute.py"))


def outputs(notebook: nbformat.NotebookNode, kind: str) -> list[str]:
    """What its cells show in a MIME type."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output.data[kind] for output in shown if kind in output.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_and_keep_players_and_plots(
    notebook_tools: dict[str, Any], path: Path, tmp_path: Path
) -> None:
    executed = notebook_tools["execute"](path, tmp_path)
    kept = nbformat.read(path, as_version=4)
    nbformat.validate(kept)
    for notebook in (executed, kept):
        assert sum("<audio" in html for html in outputs(notebook, "text/html")) >= 2
        assert len(outputs(notebook, "image/png")) == 1
        assert "/site-packages/" not in nbformat.writes(notebook)
    assert [cell.source for cell in executed.cells] == [cell.source for cell in kept.cells]
    assert path.stat().st_size < 600_000


def test_large_players_are_left_out_of_a_notebook(notebook_tools: dict[str, Any]) -> None:
    small, large, table = (
        {"text/html": html}
        for html in ("<audio>" + "x" * 100, "<audio>" + "x" * 300_000, "<table>" + "x" * 300_000)
    )
    for data in (small, large, table):
        notebook_tools["shrink"](data)
    assert [len(data["text/html"]) for data in (small, table)] == [107, 300_007]
    assert large == {"text/html": "<em>A player of 300 kB: run the cell to hear it.</em>"}


def test_every_example_is_tested() -> None:
    tested = {"quickstart", "clone_a_voice", "llm_to_speech", "subtitles", "read_a_book"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested
    assert {path.stem for path in NOTEBOOKS} == {"quickstart", "voices"}

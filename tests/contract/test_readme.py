"""What the documentation shows works: README, docstrings."""

import doctest
import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest

import stepflow_tts
from stepflow_tts import StepFlowTTS
from stepflow_tts.cli import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [
    line for language, block in BLOCKS if language == "bash" for line in block.splitlines() if line
]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(stepflow_tts.__path__, "stepflow_tts.")
    if not module.name.endswith("__main__")
]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with a recording, as a reader of the README would have it."""
    monkeypatch.chdir(tmp_path)
    text = "This is my own voice, a few seconds of it."
    StepFlowTTS.from_pretrained().synthesize(text).save("me.wav")
    return tmp_path


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


def test_readme_python_runs(desk: Path) -> None:
    scope: dict[str, object] = {}
    blocks = [block for language, block in BLOCKS if language == "python"]
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)
    assert len(blocks) >= 2
    assert (desk / "hello.wav").stat().st_size > 10_000


@pytest.mark.parametrize("line", [c for c in COMMANDS if c.split()[0] == "stepflow-tts"])
def test_readme_commands_are_understood(line: str) -> None:
    words = shlex.split(line, comments=True)
    for sign in ("|", ">", "<"):
        words = words[: words.index(sign)] if sign in words else words
    build_parser().parse_args(words[1:])


def test_readme_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [shlex.split(line)[1] for line in COMMANDS if line.startswith("make ")]
    assert {"say", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def test_readme_links_are_not_broken() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


@pytest.mark.parametrize("name", ["stepflow_tts", *MODULES])
def test_docstring_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(name)).failed == 0

"""docs/results.md says what the reports in benchmarks/results say, and its commands are ours."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stepflow_tts.cli import build_parser

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "results_page", ROOT / "benchmarks" / "results_page.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("rows", ["METHODS", "ABLATION", "REMEDIES", "STRENGTHS"])
def test_scores_are_those_of_the_reports(page: ModuleType, rows: str) -> None:
    assert page.scores(getattr(page, rows)) in PAGE


def test_differences_speed_and_variance_are_those_of_the_reports(page: ModuleType) -> None:
    assert page.differences(page.PAIRED) in PAGE
    assert page.speed() in PAGE
    assert page.variance() in PAGE


def test_its_sounds_are_those_that_lie_there(page: ModuleType) -> None:
    assert page.samples() in PAGE
    assert page.clones() in PAGE
    linked = set(re.findall(r"\(audio/([^)]+)\)", PAGE))
    assert linked == {path.name for path in page.AUDIO.iterdir()}


def test_every_row_was_spoken_as_its_command_says(page: ModuleType) -> None:
    for row in {*page.METHODS, *page.ABLATION, *page.REMEDIES, *page.STRENGTHS}:
        assert row.command in PAGE
        arguments = build_parser().parse_args(shlex.split(row.command)[1:])
        settings = page.result_of(row).settings
        assert settings["num_steps"] == (arguments.steps or 1), row.name
        assert settings["cfg_strength"] == (arguments.cfg_strength or 0.0), row.name
        model = "bundled" if arguments.model is None else Path(arguments.model).name
        assert Path(str(settings["model"])).name == model, row.name


def test_html_is_the_same_page(page: ModuleType) -> None:
    assert (ROOT / "docs" / "results.html").read_text(encoding="utf-8") == page.to_html(PAGE)

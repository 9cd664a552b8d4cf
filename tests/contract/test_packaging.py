"""What the project file promises and the wheel holds."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import stepflow_tts

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = [*PROJECT["dependencies"], *(r for extra in EXTRAS.values() for r in extra)]
MAX_WHEEL_BYTES = 60_000_000  # PyPI takes 100 MB


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the working tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_requirements_have_a_lower_bound_and_nothing_else(requirement: str) -> None:
    own_extras = r"stepflow-tts\[[\w,]+\]"
    assert re.fullmatch(rf"[\w.-]+(\[[\w,]+\])?>=\d+(\.\d+)*|{own_extras}", requirement)


def test_core_dependencies() -> None:
    names = {re.split(r"[\[>]", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert names >= {"torch", "torchaudio", "vocos", "huggingface_hub", "safetensors"}
    assert names >= {"phonemizer", "espeakng-loader", "soundfile"}
    assert not names & {"accelerate", "fastapi", "gradio", "transformers", "jiwer", "scipy"}


def test_wheel_holds_all_of_the_package_and_no_more(wheel: Path) -> None:
    source = ROOT / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {"stepflow_tts/py.typed", "stepflow_tts/weights/config.json"} <= expected
    assert {
        "stepflow_tts/weights/model.safetensors",
        "stepflow_tts/weights/MODEL_CARD.md",
    } <= expected
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_wheel_is_small_enough_for_the_registry(wheel: Path) -> None:
    assert wheel.stat().st_size < MAX_WHEEL_BYTES


def test_wheel_names_version_licence_and_command(wheel: Path) -> None:
    assert wheel.name == f"stepflow_tts-{stepflow_tts.__version__}-py3-none-any.whl"
    info = f"stepflow_tts-{stepflow_tts.__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"{info}/METADATA").decode()
        licence = archive.read(f"{info}/licenses/LICENSE").decode()
        commands = archive.read(f"{info}/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0\n" in metadata
    assert "Requires-Python: >=3.11\n" in metadata
    assert "Apache License" in licence
    assert "stepflow-tts = stepflow_tts.cli:main" in commands


def test_changelog_has_an_entry_for_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{stepflow_tts.__version__}]" in changelog

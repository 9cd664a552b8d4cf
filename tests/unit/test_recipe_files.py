"""Recipe files that extend others, and every recipe of the repository."""

from pathlib import Path

import pytest

from stepflow_tts.errors import OptionError
from stepflow_tts.training.recipe import read_recipe
from stepflow_tts.training.recipe_files import read_tables

RECIPES = Path(__file__).parents[2] / "recipes"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


def test_tables_are_laid_over_those_below(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    write(
        tmp_path, base="seed = 1\nthreads = 2\n[data]\nbatch_seconds = 5.0\n[data.shares]\na = 0.1"
    )
    write(tmp_path / "rows", middle='extends = "../base.toml"\nseed = 2\n[data.shares]\nb = 0.2')
    write(
        tmp_path / "rows",
        row='extends = "middle.toml"\nfolders = ["x"]\n[data]\nbatch_seconds = 6.0',
    )
    assert read_tables(tmp_path / "rows" / "row.toml") == {
        "seed": 2,
        "threads": 2,
        "folders": ["x"],
        "data": {"batch_seconds": 6.0, "shares": {"a": 0.1, "b": 0.2}},
    }
    assert read_tables(tmp_path / "base.toml")["data"] == {
        "batch_seconds": 5.0,
        "shares": {"a": 0.1},
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extends = "other.toml"', r"Cannot read the recipe .*other\.toml: No such file"),
        ("extends = 3", r"extends is 3 in .*a\.toml"),
        ('extends = "a.toml"', r"a\.toml extends itself"),
        ("seed == 3", r"a\.toml is not TOML"),
    ],
)
def test_files_that_cannot_be_laid_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        read_tables(write(tmp_path, a=text) / "a.toml")


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda p: p.stem)
def test_recipes_of_the_repository_are_whole(path: Path) -> None:
    recipe = read_recipe(read_tables(path))
    assert recipe.folders
    if path.parent.name == "rows" and path.stem != "common":
        assert recipe.student == path.stem
        common = read_recipe(read_tables(path.parent / "common.toml"))
        assert recipe.distill_loop == common.distill_loop
        assert recipe.trajectories == common.trajectories

"""Lists of what is to be evaluated."""

from pathlib import Path

import pytest

from stepflow_tts.errors import OptionError
from stepflow_tts.evaluation.lists import (
    Utterance,
    format_recordings,
    read_pairs,
    read_recordings,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two recordings, one with its text beside it."""
    for name in ("b.wav", "a.wav", "notes.md"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "a.txt").write_text("\ufeffThe text.\n", encoding="utf-8")
    return tmp_path


def test_pairs_are_relative_to_their_file_and_limited(folder: Path) -> None:
    path = folder / "pairs.tsv"
    path.write_bytes("\ufeffOne\u2028two.\ta.wav\r\n\nThree.\tb.wav\n".encode())
    first, second = (
        Utterance("One\u2028two.", folder / "a.wav"),
        Utterance("Three.", folder / "b.wav"),
    )
    assert read_pairs(path) == [first, second]
    assert read_pairs(path, limit=1) == [first]
    with pytest.raises(OptionError, match="The limit is 0 utterances; it must be 1 or more"):
        read_pairs(path, limit=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"One.\ta.wav\n\nTwo.\n", "line 3 has 1 fields; it must be TEXT <tab> REFERENCE"),
        (b"One.\ta.wav\tmore\n", "line 1 has 3 fields"),
        (b"  \ta.wav\n", "line 1 has 2 fields; it must be TEXT"),
        (b"One.\tc.wav\n", "line 1 names 'c.wav', but there is no file"),
        (b"\n", "There is nothing to evaluate"),
        (b"One\xff.\ta.wav\n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_bad_pairs_tell_their_line(folder: Path, content: bytes | None, message: str) -> None:
    path = folder / "pairs.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OptionError, match=message):
        read_pairs(path)


def test_recordings_of_a_list(folder: Path) -> None:
    path = folder / "list.tsv"
    path.write_text("b.wav\tB.\ta.wav\na.wav\tA.\nb.wav\n", encoding="utf-8")
    a, b = folder / "a.wav", folder / "b.wav"
    expected = [Utterance("B.", a, b), Utterance("A.", None, a), Utterance(None, None, b)]
    assert read_recordings(path) == expected
    assert read_recordings(folder) == expected  # a folder with a list is that list
    path.write_text("b.wav\tB.\ta.wav\tmore\n", encoding="utf-8")
    with pytest.raises(OptionError, match="line 1 has 4 fields"):
        read_recordings(path)


def test_recordings_of_a_folder_are_sorted_and_find_their_texts(folder: Path) -> None:
    a, b = folder / "a.wav", folder / "b.wav"
    assert read_recordings(folder) == [Utterance("The text.", None, a), Utterance(None, None, b)]
    assert read_recordings(folder, limit=1) == [Utterance("The text.", None, a)]


def test_a_folder_without_recordings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="There is nothing to evaluate in"):
        read_recordings(tmp_path)


def test_a_list_is_read_as_it_was_written(folder: Path) -> None:
    made = [Utterance("A.", folder / "b.wav", folder / "a.wav")]
    (folder / "list.tsv").write_text(format_recordings(made), encoding="utf-8")
    assert read_recordings(folder) == made

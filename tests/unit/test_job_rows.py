"""The rows of a job: the same from every format, each checked, none left out."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from stepflow_tts.jobs.rows import read_rows, read_shards


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_jsonl(path: str, *found: dict[str, Any] | str) -> None:
    """Rows, or lines as they are."""
    lines = (row if isinstance(row, str) else json.dumps(row) for row in found)
    Path(path).write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")


def test_rows_are_the_same_from_jsonl_csv_and_parquet() -> None:
    texts = [
        ("a", "Hello, there.", "ben"),
        ("7", 'She said "no".\nThen\u2028yes.', ""),
        ("ü/.", "Ça.", ""),
    ]
    write_jsonl(
        "rows.jsonl",
        *({"id": i, "text": t, "voice": v or None, "speaker": "x"} for i, t, v in texts[:1]),
        "",
        '{"id": 7, "text": "She said \\"no\\".\\nThen\u2028yes."}',
        json.dumps({"id": "ü/.", "text": "Ça."}, ensure_ascii=False),
    )
    with open("rows.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("text", "id", "voice"), *((t, i, v) for i, t, v in texts)])
    assert [(r.id, r.text, r.voice, r.reason) for r in read_rows(Path("rows.jsonl"))] == [
        (*row, "") for row in texts
    ]
    assert [r.number for r in read_rows(Path("rows.jsonl"))] == [1, 3, 4]  # lines
    expected = [(n, *row, "") for n, row in enumerate(texts, 1)]
    found = [(r.number, r.id, r.text, r.voice, r.reason) for r in read_rows(Path("rows.csv"))]
    assert found == expected
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra [ray] is not installed")
    from pyarrow import table

    ids, said, voices = zip(*texts, strict=True)
    parquet.write_table(
        table({"id": ids, "text": said, "voice": [v or None for v in voices], "n": [1, 2, 3]}),
        "rows.parquet",
    )
    found = [(r.number, r.id, r.text, r.voice, r.reason) for r in read_rows(Path("rows.parquet"))]
    assert found == expected


def test_a_file_is_always_cut_into_the_same_shards() -> None:
    write_jsonl("rows.jsonl", *({"id": i, "text": "" if i == 1 else "Hi."} for i in range(5)))
    shards = list(read_shards(Path("rows.jsonl"), 2))
    cut = [(s.number, [row.id for row in s.rows]) for s in shards]
    assert cut == [(0, ["0", "1"]), (1, ["2", "3"]), (2, ["4"])]
    assert shards == list(read_shards(Path("rows.jsonl"), 2))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "No id."}, "There is no id."),
        ({"id": "", "text": "No id."}, "There is no id."),
        ({"id": " ", "text": "No id."}, "The id is blank."),
        ({"id": "x"}, "There is no text."),
        ({"id": "x", "text": " \n"}, "The text is blank."),
        ({"id": "x", "text": 5}, "The text is 5; it must be a string."),
        ({"id": True, "text": "Hi."}, "The id is true; it must be a string."),
        (
            {"id": "x", "text": "Hi.", "voice": ["ben"]},
            'The voice is ["ben"]; it must be a string.',
        ),
        ({"id": "é" * 41, "text": "Hi."}, "The id has 82 bytes; 80 are allowed."),
        ('{"id": "x", "text": "caf\udce9"}', "The text is not UTF-8."),
        ('{"id": "x", "text": "\\ud800"}', "The text is not UTF-8."),
        ('{"id": "x"', "It is not JSON"),
        ("[" * 100_000, "It is not JSON"),
        ('["x", "Hi."]', "It is not a JSON object."),
        ({"id": "first", "text": "Again."}, "The id is that of row 1, too."),
    ],
)
def test_bad_rows_have_a_reason_and_cost_no_other(row: dict[str, Any] | str, reason: str) -> None:
    first, last = ({"id": name, "text": "Hi."} for name in ("first", "last"))
    write_jsonl("rows.jsonl", first, row, last)
    found = list(read_rows(Path("rows.jsonl")))
    assert [r.reason == "" for r in found] == [True, False, True]
    assert found[1].reason.startswith(reason)


def test_an_id_is_free_until_a_row_of_it_can_be_spoken() -> None:
    write_jsonl("rows.jsonl", {"id": "x"}, {"id": "x", "text": "Hi."}, {"id": "x", "text": "Ho."})
    assert [r.reason for r in read_rows(Path("rows.jsonl"))] == [
        "There is no text.",
        "",
        "The id is that of row 2, too.",
    ]

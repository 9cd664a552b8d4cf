"""Intervals with known answers, and the report that is made of them."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from stepflow_tts.errors import OptionError
from stepflow_tts.evaluation.chart import draw
from stepflow_tts.evaluation.intervals import (
    Interval,
    Pair,
    difference,
    interval,
    median_of_ratios,
    quotient,
    ratio_of_sums,
)
from stepflow_tts.evaluation.report import (
    Result,
    Row,
    compare,
    format_table,
    read_results,
    summarize,
    to_json,
)


def pair(numerators: list[float], denominators: list[float] | None = None) -> Pair:
    """Columns; denominators of one unless given."""
    ones = [1.0] * len(numerators)
    return Pair(np.array(numerators, float), np.array(denominators or ones, float))


def test_statistics_by_hand() -> None:
    errors = pair([0, 3], [10, 1])
    assert ratio_of_sums(*errors) == 3 / 11  # not the mean of 0 and 3
    times = pair([1, 2, 90], [10, 10, 10])
    assert median_of_ratios(*times) == 0.2  # not moved by the disturbed one


def test_interval_of_a_proportion_is_that_of_the_textbook() -> None:
    values = [0.0, 1.0] * 200
    value, low, high = interval(ratio_of_sums, pair(values))
    half = 1.96 * (0.25 / 400) ** 0.5  # .049
    assert value == 0.5
    assert low == pytest.approx(0.5 - half, abs=0.006)
    assert high == pytest.approx(0.5 + half, abs=0.006)


def test_interval_draws_utterances_not_words() -> None:
    """Ten utterances, right or wrong as a whole: as uncertain as ten throws, not as a thousand."""
    value, low, high = interval(ratio_of_sums, pair([0, 100] * 5, [100] * 10))
    assert value == 0.5
    assert high - low > 0.5


def test_interval_of_a_constant_and_of_one_utterance() -> None:
    assert interval(ratio_of_sums, pair([2, 2, 2])) == (2, 2, 2)
    assert interval(ratio_of_sums, pair([2])) == (2, None, None)
    with pytest.raises(OptionError, match="1 or more"):
        interval(ratio_of_sums, pair([]))


def test_interval_is_always_the_same() -> None:
    columns = pair(list(range(30)))
    assert interval(ratio_of_sums, columns) == interval(ratio_of_sums, columns)


def test_a_paired_difference_leaves_out_what_is_hard_for_both() -> None:
    hard = np.random.default_rng(0).normal(size=50) * 10
    first, second = pair(list(hard)), pair(list(hard + 1))
    alone = interval(ratio_of_sums, first)
    assert alone.high - alone.low > 4
    value, low, high = difference(ratio_of_sums, first, second)
    assert (value, low, high) == pytest.approx((-1, -1, -1))


def test_a_paired_difference_of_ratios_by_hand() -> None:
    value = difference(ratio_of_sums, pair([1, 2], [10, 10]), pair([4, 2], [10, 10])).value
    assert value == pytest.approx(0.15 - 0.30)
    with pytest.raises(OptionError, match="as many in each"):
        difference(ratio_of_sums, pair([1, 2]), pair([1, 2, 3]))


def test_a_paired_quotient_by_hand() -> None:
    slow, fast = pair([20, 40], [10, 10]), pair([1, 2], [10, 10])
    assert quotient(median_of_ratios, slow, fast) == pytest.approx((20, 20, 20))


def row(text: str, errors: int, seconds: float, **more: float) -> Row:
    """An utterance of ten words and two seconds that took `seconds`."""
    return {
        "text": text,
        "reference": "voice.wav",
        "word_errors": errors,
        "words": 10,
        "deletions": errors,
        "insertions": 0,
        "evaluations": 2,
        "chunks": 2,
        "audio_seconds": 2.0,
        "synthesis_seconds": seconds,
        "flow_seconds": seconds / 2,
        **more,
    }


@pytest.fixture
def student() -> Result:
    """Three utterances with 0, 1 and 2 errors in 10 words each."""
    rows = [row("a", 0, 0.2), row("b", 1, 0.2), row("c", 2, 0.4)]
    return Result("student", rows, {"num_steps": 1}, 1_234_567, 0)


@pytest.fixture
def teacher() -> Result:
    """The same texts, one error less in the last, ten times as slow."""
    return Result("teacher", [row("a", 0, 2.0), row("b", 1, 2.0), row("c", 1, 4.0)])


def test_summary_by_hand(student: Result) -> None:
    summary = summarize(student.rows)
    assert set(summary) == {"wer", "deletions", "insertions", "nfe", "rtf", "rtf_flow"}
    assert summary["wer"].value == pytest.approx(10.0)  # 3 of 30 words, in percent
    assert summary["deletions"].value == pytest.approx(100.0)  # per 1000 words
    assert summary["nfe"] == (1, 1, 1)  # a chunk
    assert summary["rtf"].value == pytest.approx(0.1)  # the median, of .1, .1 and .2
    assert summary["rtf_flow"].value == pytest.approx(0.05)


def test_a_score_that_a_row_lacks_is_not_in_the_summary(student: Result) -> None:
    student.rows[0]["sim"] = 0.5
    assert "sim" not in summarize(student.rows)


def test_comparison_by_hand(student: Result, teacher: Result) -> None:
    comparison = compare(student, teacher)
    assert comparison.difference["wer"].value == pytest.approx(10 - 20 / 3)
    assert comparison.difference["rtf"].value == pytest.approx(0.1 - 1.0)
    assert comparison.speedup["rtf_flow"] == pytest.approx((10, 10, 10))
    assert set(comparison.speedup) == {"rtf", "rtf_flow"}


def test_only_the_same_lines_are_compared(student: Result, teacher: Result) -> None:
    with pytest.raises(
        OptionError, match=r"'student' \(3 utterances\) and 'teacher' \(2\) did not"
    ):
        compare(student, Result("teacher", teacher.rows[:2]))
    with pytest.raises(OptionError, match="Evaluate both on the same list"):
        compare(student, Result("teacher", teacher.rows[::-1]))
    with pytest.raises(OptionError, match="no score in common"):
        compare(student, Result("other", [{"text": t, "reference": "voice.wav"} for t in "abc"]))


def test_table(student: Result, teacher: Result) -> None:
    lines = format_table([student, teacher], [compare(student, teacher)]).splitlines()
    table, compared = lines[: lines.index("")], lines[lines.index("") :]
    cells = {line[:26].strip(): line[26:].split() for line in table}
    assert table[0].split() == ["student", "teacher"]
    assert cells["parameters"] == ["1,234,567", "-"]
    assert cells["utterances"] == ["3", "3"]
    assert cells["NFE, counted"] == ["1.0", "1.0"]
    assert cells["WER %"][0] == "10.00"
    assert compared[1] == "student minus teacher, paired"
    cells = {line[:26].strip(): line[26:].split() for line in compared}
    assert cells["WER %"][0] == "+3.33"
    assert cells["times as fast, RTF, togeth"] == ["er", "10.00"]


def test_report_is_read_as_it_was_written(student: Result, teacher: Result, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    text = to_json([student, teacher], [compare(student, teacher)], {"torch": "2"})
    path.write_text(text, encoding="utf-8")
    assert read_results(path) == [student, teacher]
    report = json.loads(text)
    assert report["torch"] == "2"
    assert report["systems"][0]["metrics"]["wer"]["value"] == pytest.approx(10.0)
    assert report["comparisons"][0]["against"] == "teacher"
    assert set(report["comparisons"][0]["difference"]["wer"]) == {"value", "low", "high"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no report: JSONDecodeError"),
        ("[]", "is no report: TypeError"),
        ('{"format_version": 1, "systems": [{}]}', "is no report: KeyError: 'name'"),
        ('{"format_version": 9}', "has the format version 9; this version reads 1"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        read_results(path)


def test_chart_is_a_picture_that_grows_with_the_systems(student: Result, teacher: Result) -> None:
    heights = []
    for results in ([student], [student, teacher]):
        png = draw(results)
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        heights.append(struct.unpack(">II", png[16:24])[1])
    assert heights[1] > heights[0]


def test_chart_of_one_utterance_has_no_interval(student: Result) -> None:
    assert summarize(student.rows[:1])["wer"] == Interval(0, None, None)
    assert draw([Result("one", student.rows[:1])]).startswith(b"\x89PNG")

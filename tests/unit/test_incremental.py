"""Text in parts gives the plan of the whole text, and gives it early."""

import random
from collections.abc import Iterable, Iterator

import pytest

from stepflow_tts.errors import TextError
from stepflow_tts.text.incremental import LONG_LINE, LOOKAHEAD, Planner
from stepflow_tts.text.normalize import normalize
from stepflow_tts.text.split import Chunk, split

TEXTS = [
    "Hello there, my dear friend. How are you today? I am fine. Yes. No! Well, maybe so, she said.",
    "Dr. Smith paid $5.2M on Jan. 5, 2024 at 3 p.m. He left. See No. 5 on p. 12. It rains in the U.S. "
    "today and it will rain tomorrow. E.g. this one... and that one. (In brackets. Twice.) Done now.",
    "# A heading\n\nFirst paragraph, quite short.\nA line.\n\n1. One item\n2. Another item. With two.\n\n"
    "- **Bold. Not yet closed** and more of it here. Then *this one. Too* and `code. x` ends. Fine then.",
    'He said: "Wait. I am coming. Do not go." and left. "Go!" he cried. Nobody went. See [a link. '
    "b](https://example.com/x.y) for more of this. The file_name is a.b.c and snake_case it stays. OK.",
    '12 , It is so : Leading marks ... Eight ." Another item ." - Not a list (or is it ! With two . Nine',
    "A short one.",
    "Short. One. Two. Three. Four. Five. Six. Seven. Eight. Nine. Ten. Eleven. Twelve. Thirteen is more.",
    "no end at all " * 40 + "and then. " + "Another sentence of some length follows here. " * 6,
    "A . 5. And the rest of it, which is somewhat longer than that ... " + "no end at all " * 20,
    "  \n\n ... \n\nLeading marks. And the rest of it, which is somewhat longer than that.\n\n\n",
]


def chunks(text: str, first: bool) -> list[Chunk]:
    return split(normalize(text), first=first)


def plan(text: str, first: bool) -> list[tuple[str, float]]:
    return [(c.text, c.pause_seconds) for c in chunks(text, first)]


def plan_parts(parts: Iterable[str]) -> Iterator[tuple[str, float]]:
    planner = Planner(chunks, plan)
    for part in parts:
        yield from planner.feed(part)
    yield from planner.finish()


def cut(text: str, rng: random.Random) -> Iterator[str]:
    place = 0
    while place < len(text):
        length = rng.choice((0, 1, 2, 3, 5, 8, 60))
        yield text[place : place + length]
        place += length


@pytest.mark.parametrize("text", TEXTS)
def test_parts_give_the_plan_of_the_whole(text: str) -> None:
    whole = plan(text, True)
    for seed in range(8):
        assert list(plan_parts(cut(text, random.Random(seed)))) == whole
    assert list(plan_parts(text)) == whole  # character by character
    assert list(plan_parts([text])) == whole


def test_sentences_in_any_order_give_the_plan_of_the_whole() -> None:
    sentences = [s + " " for text in TEXTS for s in text.replace("\n", " ").split(". ")]
    for seed in range(40):
        rng = random.Random(seed)
        text = "".join(
            s + rng.choice((". ", "! ", "? ", "... ", "\n", "\n\n", ", "))
            for s in rng.choices(sentences, k=8)
        )
        assert list(plan_parts(cut(text, rng))) == plan(text, True), text


LONG = (
    'Well, here is one more. 3. It is so. In 1945. He said: "Go. Now." Yes. Dr. No. It cost $5.2M. '
    "- Not a list (or is it. Maybe). A. B. went to the U.S. today and stayed; nobody minded it at all. "
)


def test_a_long_line_is_forgotten_and_planned_alike() -> None:
    text, rng = LONG * 12, random.Random(0)
    planner = Planner(chunks, plan)
    found, longest = [], 0
    for part in cut(text, rng):
        found += planner.feed(part)
        longest = max(longest, len(planner._text))
    assert found + planner.finish() == plan(text, True)
    assert longest < 2 * LONG_LINE


def test_the_first_sentence_comes_before_the_second_is_over() -> None:
    text = "This is the first sentence. And this second one goes on and on without an end in sight"
    taken = 0

    def parts() -> Iterator[str]:
        nonlocal taken
        for character in text:
            taken += 1
            yield character

    assert next(plan_parts(parts()))[0] == text[:27]
    assert taken <= 28 + LOOKAHEAD + 1


def test_a_finished_line_comes_with_the_next_one() -> None:
    def parts() -> Iterator[str]:
        yield "A line without a mark\n"
        yield "\nN"
        raise ConnectionError

    found = plan_parts(parts())
    assert next(found) == ("A line without a mark.", 0.7)
    with pytest.raises(ConnectionError):
        next(found)


@pytest.mark.parametrize("parts", [[], [""], ["\n", "  "], ["...", "!"]])
def test_nothing_to_speak_is_refused(parts: list[str]) -> None:
    with pytest.raises(TextError):
        list(plan_parts(parts))


def test_parts_that_are_no_text_are_refused() -> None:
    with pytest.raises(TextError, match="bytes"):
        list(plan_parts([b"x"]))  # type: ignore[list-item]

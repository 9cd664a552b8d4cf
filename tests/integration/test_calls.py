"""Many ways to ask for the same speech: in parts, asynchronously, in batches, beside other processes."""

import asyncio
import multiprocessing
import os
import pickle
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from stepflow_tts import (
    OptionError,
    Speech,
    StepFlowError,
    StepFlowTTS,
    SynthesisError,
    TextError,
)

TEXT = (
    "Hello there, how are you today? This is the second sentence of the four. It paid $5.2M.\n\n"
    "A new paragraph. And a third one."
)


def same(a: Speech, b: Speech) -> bool:
    """Sample by sample; times are sums, so they may differ in the last bit."""
    times = [[t for word in s.words for t in word[1:]] for s in (a, b)]
    return (
        np.array_equal(a.samples, b.samples)
        and [w.text for w in a.words] == [w.text for w in b.words]
        and np.allclose(*times, atol=1e-9)
    )


def in_parts(text: str, size: int) -> Iterator[str]:
    for i in range(0, len(text), size):
        yield text[i : i + size]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_text_in_parts_is_spoken_as_the_whole(tts: StepFlowTTS, size: int) -> None:
    whole = tts.synthesize(TEXT, "ben", seed=4, speed=1.1)
    pieces = list(tts.stream(in_parts(TEXT, size), "ben", seed=4, speed=1.1))
    assert len(pieces) == 3
    assert same(Speech.join(pieces), whole)
    assert same(Speech.join(tts.stream(TEXT, "ben", seed=4, speed=1.1)), whole)


def test_the_first_piece_comes_before_the_text_is_over(tts: StepFlowTTS) -> None:
    taken: list[str] = []

    def parts() -> Iterator[str]:
        for part in in_parts(TEXT, 1):
            taken.append(part)
            yield part

    first = next(tts.stream(parts()))
    assert first.text == "Hello there, how are you today?"
    assert len(taken) < 80


def test_an_iterator_that_fails_loses_nothing_before_it(tts: StepFlowTTS) -> None:
    def parts() -> Iterator[str]:
        yield TEXT[:80]
        raise ConnectionError("the model went away")

    pieces = tts.stream(parts())
    assert same(next(pieces), next(tts.stream(TEXT)))
    with pytest.raises(ConnectionError, match="went away"):
        next(pieces)


def test_parts_that_cannot_be_spoken(tts: StepFlowTTS) -> None:
    with pytest.raises(TextError):
        list(tts.stream(["...", " "]))
    with pytest.raises(TextError, match="int"):
        list(tts.stream(["Hello. ", 5]))  # type: ignore[list-item]
    with pytest.raises(OptionError, match="in parts"):
        tts.stream(["<speak>a</speak>"], markup="ssml")


def test_async_pieces_are_those_of_stream(tts: StepFlowTTS) -> None:
    async def parts() -> AsyncIterator[str]:
        for part in in_parts(TEXT, 5):
            await asyncio.sleep(0)
            yield part

    async def collect(text: str | AsyncIterator[str]) -> list[Speech]:
        return [piece async for piece in tts.astream(text, "anna", seed=2)]

    wanted = list(tts.stream(TEXT, "anna", seed=2))
    for text in (TEXT, parts()):
        got = asyncio.run(collect(text))
        assert len(got) == len(wanted)
        assert all(same(a, b) for a, b in zip(got, wanted, strict=True))


def test_async_errors_are_those_of_stream(tts: StepFlowTTS) -> None:
    async def first(text: str, **options: float) -> None:
        async for _ in tts.astream(text, **options):  # type: ignore[misc]
            return

    with pytest.raises(TextError):
        asyncio.run(first("..."))
    with pytest.raises(OptionError, match="speed"):
        asyncio.run(first("Hello.", speed=9.0))


def test_the_event_loop_goes_on_while_speech_is_made(tts: StepFlowTTS) -> None:
    async def count() -> int:
        ticks = 0
        task = asyncio.create_task(anext(aiter(tts.astream(TEXT))))
        while not task.done():
            ticks += 1
            await asyncio.sleep(0.001)
        return ticks

    assert asyncio.run(count()) > 2


def test_a_batch_gives_what_single_calls_give(tts: StepFlowTTS) -> None:
    texts = [TEXT, "Short.", "...", "A sentence of middling length, with a comma.", "Yes, yes."]
    voices = ["anna", "ben", "anna", "nobody", ("ben")]
    got = tts.synthesize_batch(texts, voices, batch_seconds=20.0, seed=3, speed=0.9)
    assert [type(x).__name__ for x in got] == [
        *("Speech", "Speech", "TextError", "OptionError", "Speech")
    ]
    for text, voice, speech in zip(texts, voices, got, strict=True):
        if isinstance(speech, StepFlowError):
            continue
        alone = tts.synthesize(text, voice, seed=3, speed=0.9)
        assert len(speech.samples) == len(alone.samples)
        assert speech.text == text
        assert [w.text for w in speech.words] == [w.text for w in alone.words]
        assert np.corrcoef(speech.samples, alone.samples)[0, 1] > 0.999


def test_a_batch_of_one_voice_and_of_nothing(tts: StepFlowTTS) -> None:
    assert tts.synthesize_batch([]) == []
    one, two = tts.synthesize_batch(["Hello.", "Good morning to you."], "ben", batch_seconds=0.01)
    assert isinstance(one, Speech)
    assert isinstance(two, Speech)
    assert np.array_equal(two.samples, tts.synthesize("Good morning to you.", "ben").samples)


def test_batches_that_make_no_sense(tts: StepFlowTTS) -> None:
    with pytest.raises(OptionError, match="one string"):
        tts.synthesize_batch("Hello.")
    with pytest.raises(OptionError, match="2 texts and 1 voices"):
        tts.synthesize_batch(["a", "b"], ["anna"])
    with pytest.raises(OptionError, match="batch_seconds"):
        tts.synthesize_batch(["a"], batch_seconds=0)
    with pytest.raises(OptionError, match="num_steps"):
        tts.synthesize_batch(["a"], num_steps=3)


def test_a_closed_model_says_so(tts: StepFlowTTS, checkpoint_folder: Path) -> None:
    with StepFlowTTS.from_pretrained(checkpoint_folder, device="cpu") as other:
        voice = other.encode_voice(tts.synthesize(TEXT, "ben").to_bytes())
        speech = other.synthesize("Hello.", voice)
    with pytest.raises(SynthesisError, match="closed"):
        other.synthesize("Hello.")
    assert same(speech, tts.synthesize("Hello.", voice))  # both outlive it
    other.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are of POSIX")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_what_to_do(tts: StepFlowTTS) -> None:
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def child() -> None:
        try:
            tts.synthesize("Hello.")
        except SynthesisError as error:
            answers.put(str(error))
        else:
            answers.put("spoke")

    process = context.Process(target=child)
    process.start()
    assert "spawn" in answers.get(timeout=30)
    process.join(30)


def speak_elsewhere(folder: Path) -> bytes:
    """Top level, so that a spawned process finds it."""
    tts = StepFlowTTS.from_pretrained(folder, device="cpu")
    return pickle.dumps(tts.synthesize("Hello.", tts.voices["ben"]))


def test_a_spawned_process_speaks_the_same(tts: StepFlowTTS, checkpoint_folder: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got: Speech = pickle.loads(pool.apply(speak_elsewhere, (checkpoint_folder,)))
    alone = tts.synthesize("Hello.", "ben")
    assert len(got.samples) == len(alone.samples)
    np.testing.assert_allclose(got.samples, alone.samples, atol=1e-4)

"""Batches: what is drawn, how often, and what lies where. Every utterance's mel is one number."""

import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stepflow_tts.audio.mel import band_centres
from stepflow_tts.config import FlowConfig, MelConfig
from stepflow_tts.errors import InputError
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.data import Batch, Corpus, DataConfig, Item, cut_at_pauses
from stepflow_tts.training.degrade import degrade
from stepflow_tts.training.utterances import Utterance, write_utterances

FLOW = FlowConfig(mean=-2.0, std=2.0)
CLEAN = DataConfig(batch_seconds=6.0, degrade_probability=0.0)
FRAME_RATE = 93.75


def write_folder(
    folder: Path, speakers: Mapping[str, list[int]], corpus: str = "speech", **changes: Any
) -> Path:
    """A prepared folder with utterances of these frames; the mel of the i-th is i / 8 everywhere."""
    folder.mkdir(parents=True)
    utterances: list[Utterance] = []
    start = 0
    with open(folder / "mels.f16", "wb") as mels:
        for speaker, lengths in speakers.items():
            for n in lengths:
                token_ids = Tokenizer().encode("aba")
                u = Utterance(
                    id=f"u{len(utterances)}",
                    corpus=corpus,
                    speaker=speaker,
                    text="x",
                    language="en-us",
                    source_sample_rate=24000.0,
                    start_frame=start,
                    num_frames=n,
                    start_sample=0,
                    num_samples=(n - 1) * 256,
                    phonemes="aba",
                    token_ids=token_ids,
                    durations=[3, 5, n - 15, 4, 3],
                    split="train",
                )
                mels.write(np.full((n, 100), len(utterances) / 8, np.float16).tobytes())
                utterances.append(dataclasses.replace(u, **changes))
                start += n
    write_utterances(folder, utterances)
    return folder


def corpus_of(*folders: Path, config: DataConfig = CLEAN, seed: int = 0) -> Corpus:
    return Corpus(folders, "train", config, FLOW, seed)


def ids(x: torch.Tensor) -> list[int]:
    """Numbers of the utterances that normalized frames come from."""
    return (((x * FLOW.std + FLOW.mean) * 8).round().long()).unique().tolist()


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """Twelve utterances of three speakers, 60 to 250 frames."""
    lengths = {"a": [60, 75, 90, 200], "b": [100, 120, 140, 250], "c": [65, 80, 150, 201]}
    return write_folder(tmp_path / "speech", lengths)


def same(first: Batch, second: Batch) -> bool:
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_batch_is_a_function_of_seed_and_step_alone(speech: Path) -> None:
    config = DataConfig(batch_seconds=6.0, degrade_probability=0.5)
    first, second = corpus_of(speech, config=config), corpus_of(speech, config=config)
    torch.manual_seed(1)
    random.seed(1)
    wanted = [first.batch(step) for step in range(4)]
    torch.manual_seed(2)
    random.seed(2)
    before = torch.random.get_rng_state(), random.getstate()
    for step in (3, 1, 2, 0, 1):  # in any order, as often as you like
        assert same(second.batch(step), wanted[step])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert not any(same(a, b) for a, b in itertools.combinations(wanted, 2))
    other = corpus_of(speech, config=config, seed=1)
    assert not same(other.batch(0), wanted[0])


def test_what_lies_in_a_batch(speech: Path) -> None:
    corpus = corpus_of(speech)
    by_id = {ids(corpus._features(i))[0]: i for i in corpus.items}
    for step in range(8):
        batch = corpus.batch(step)
        assert batch.x1.shape[1] % 2 == 0
        assert torch.equal(batch.frame_mask.sum(1), batch.durations.sum(1))
        for i in range(len(batch.x1)):
            n = int(batch.frame_mask[i].sum())
            assert batch.frame_mask[i, :n].all()
            (found,) = ids(batch.x1[i, :n])
            item = by_id[found]
            assert n == item.num_frames
            assert batch.x1[i, n:].abs().sum() == 0
            count = int(batch.token_mask[i].sum())
            assert batch.token_ids[i, :count].tolist() == list(item.token_ids)
            assert batch.durations[i, :count].tolist() == list(item.durations)
            assert batch.durations[i, count:].sum() == 0


def test_mels_are_floored_and_normalized(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x", {"a": [60, 60]})
    np.memmap(folder / "mels.f16", np.float16, "r+")[:] = [-16.0] * 50 * 120 + [1.0] * 50 * 120
    x = torch.cat([corpus_of(folder)._features(i) for i in corpus_of(folder).items])
    expected = [(math.log(1e-3) + 2) / 2, (1 + 2) / 2]
    torch.testing.assert_close(x.unique(), torch.tensor(expected))


def test_bands_without_sound_are_masked_and_zero(tmp_path: Path) -> None:
    narrow = write_folder(tmp_path / "x", {"a": [60, 60, 60]}, source_sample_rate=8000.0)
    batch = corpus_of(narrow).batch(0)
    inside = band_centres(MelConfig()) < 0.98 * 4000
    assert 0 < inside.sum() < 100
    assert torch.equal(batch.band_mask, inside.expand(len(batch.x1), -1))
    assert batch.x1[:, :, ~inside].abs().sum() == 0
    assert (batch.x1[:, :60][:, :, inside] != 0).all()


def test_a_reference_is_of_the_same_speaker_and_never_the_target(speech: Path) -> None:
    corpus = corpus_of(speech)
    speakers = [range(4), range(4, 8), range(8, 12)]
    lengths, long = [], 0
    for step in range(150):
        batch = corpus.batch(step)
        lengths.append(batch.reference.shape[1] / FRAME_RATE)
        for i in range(len(batch.x1)):
            (target,) = ids(batch.x1[i][batch.frame_mask[i]])
            others = set(ids(batch.reference[i]))
            (speaker,) = [s for s in speakers if target in s]
            assert others
            assert others <= set(speaker) - {target}
    assert min(lengths) > 1.45
    assert max(lengths) < 8.01
    long = sum(x > 4.01 for x in lengths)
    assert 3 <= long <= 30  # one in ten is long


def test_short_utterances_are_joined_until_the_reference_is_long_enough(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x", {"a": [50, 51, 52]})
    config = dataclasses.replace(CLEAN, reference_seconds=(2.0, 2.0), long_reference_seconds=2.0)
    batch = corpus_of(folder, config=config).batch(0)
    assert batch.reference.shape[1] == 184  # two others of 50 frames have to be used twice
    assert len(ids(batch.reference[0])) == 2


def test_a_batch_holds_its_seconds(speech: Path) -> None:
    for step in range(20):
        shape = corpus_of(speech).batch(step).x1.shape
        assert shape[0] * shape[1] / FRAME_RATE < 6.0 + shape[1] / FRAME_RATE


def test_buckets_hold_every_item_once_and_lengths_are_alike(tmp_path: Path) -> None:
    rng = random.Random(0)
    lengths = [rng.randrange(50, 900) for _ in range(400)]
    corpus = corpus_of(write_folder(tmp_path / "x", {"a": lengths}))
    assert sorted(lengths) == [i.num_frames for i in corpus.items]
    covered = [i for a, b in corpus.buckets for i in range(a, b)]
    assert covered == list(range(400))
    for a, b in corpus.buckets[:-1]:
        low, high = corpus.items[a].num_frames, corpus.items[b - 1].num_frames
        assert high <= 1.12 * low or b - a <= 8


def frames_by(corpus: Corpus, key: str) -> Counter[str]:
    """Expected frames of each corpus or speaker, a share of one."""
    mass: Counter[str] = Counter()
    for item, weight in zip(corpus.items, corpus.weights, strict=True):
        mass[getattr(item, key)] += weight * item.num_frames
    total = sum(mass.values())
    return Counter({k: v / total for k, v in mass.items()})


def test_speakers_count_by_the_root_of_their_hours(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x", {"a": [100] * 16, "b": [50] * 8, "c": [200] * 2})
    shares = frames_by(corpus_of(folder), "speaker")  # 1600, 400 and 400 frames
    assert shares == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25})


def test_corpora_have_the_shares_that_are_named_and_the_rest_by_hours(tmp_path: Path) -> None:
    folders = [
        write_folder(tmp_path / "1", {"a": [100] * 4, "b": [100] * 4}, corpus="real"),
        write_folder(tmp_path / "2", {"c": [100] * 12}, corpus="one"),
        write_folder(tmp_path / "3", {"d": [200] * 12}, corpus="two"),
    ]
    config = dataclasses.replace(CLEAN, shares={"real": 0.4, "absent": 0.5})
    named = frames_by(corpus_of(*folders, config=config), "corpus")
    assert named == pytest.approx({"real": 0.4, "one": 0.2, "two": 0.4})
    assert frames_by(corpus_of(*folders), "corpus") == pytest.approx(
        {"real": 8 / 44, "one": 12 / 44, "two": 24 / 44}
    )


def test_what_is_drawn_has_the_shares_in_frames(tmp_path: Path) -> None:
    folders = [
        write_folder(tmp_path / "1", {"a": [60] * 10}, corpus="real"),
        write_folder(tmp_path / "2", {"b": [240] * 10}, corpus="synthetic"),
    ]
    config = dataclasses.replace(CLEAN, shares={"real": 0.3}, reference_seconds=(0.2, 0.2))
    corpus = corpus_of(*folders, config=config)
    frames = Counter[int]()
    for step in range(400):
        for n in corpus.batch(step).frame_mask.sum(1).tolist():
            frames[n] += n
    assert frames[60] / (frames[60] + frames[240]) == pytest.approx(0.3, abs=0.06)


def test_only_what_can_be_used_is(tmp_path: Path) -> None:
    good = write_folder(tmp_path / "1", {"a": [60, 60], "alone": [60], "b": [60, 39]})
    others = [
        write_folder(tmp_path / "2", {"c": [60, 60]}, split="held_out"),
        write_folder(tmp_path / "3", {"d": [60, 60]}, dropped="no text"),
        write_folder(tmp_path / "4", {"e": [60, 60]}, durations=None, token_ids=None),
    ]
    corpus = corpus_of(good, *others)
    assert [i.speaker for i in corpus.items] == ["a", "a"]
    assert corpus.hours == pytest.approx(120 / 93.75 / 3600)
    held_out = Corpus([good, *others], "held_out", CLEAN, FLOW, 0)
    assert {i.speaker for i in held_out.items} == {"c"}
    with pytest.raises(InputError, match="no train utterance"):
        corpus_of(*others)


def item_of(phonemes: str, durations: list[int]) -> Item:
    token_ids = Tokenizer().encode(phonemes)
    return Item("x", "a", 0, 1000, sum(durations), 12000.0, token_ids, durations)


def spoken(item: Item) -> str:
    return Tokenizer().decode(list(item.token_ids))


def test_what_is_short_enough_or_has_no_pause_stays_whole() -> None:
    short = item_of("ab cd", [5, 20, 20, 30, 20, 20, 5])
    assert cut_at_pauses(short, short.num_frames) == [short]
    no_pause = item_of("ab cd", [5, 20, 90, 11, 90, 20, 5])  # long phones, a short space
    assert cut_at_pauses(no_pause, 100) == [no_pause]


def test_a_long_utterance_is_cut_in_the_middle_of_its_pause() -> None:
    item = item_of("ab cd", [5, 20, 20, 40, 20, 20, 5])
    left, right = cut_at_pauses(item, 100)
    # the pause of 40: 20 frames left, 9 of them in the end token; the right begins with its last 9
    assert (spoken(left), left.durations) == ("ab ", [5, 20, 20, 11, 9])
    assert (spoken(right), right.durations) == ("cd", [9, 20, 20, 5])
    assert (left.start_frame, left.num_frames) == (1000, 65)
    assert (right.start_frame, right.num_frames) == (1000 + 85 - 9, 54)
    assert right.start_frame + right.num_frames == 1000 + item.num_frames
    for part in (left, right):
        assert (part.token_ids[0], part.token_ids[-1]) == (0, 1)
        assert part.speaker == "a"


def test_a_long_vowel_is_no_pause() -> None:
    item = item_of("ab, cd", [5, 40, 40, 15, 2, 40, 40, 5])
    left, right = cut_at_pauses(item, 100)
    assert (spoken(left), spoken(right)) == ("ab,", " cd")


@pytest.mark.parametrize("seed", range(5))
def test_parts_of_parts_keep_their_frames_and_lose_no_phone(seed: int) -> None:
    rng = random.Random(seed)
    words = ["".join(rng.choices("abdei", k=rng.randrange(2, 6))) for _ in range(12)]
    phonemes = ", ".join(words)
    durations = [rng.randrange(12, 40) if p == "," else rng.randrange(1, 12) for p in phonemes]
    item = item_of(phonemes, [4, *durations, 6])
    longest = item.num_frames // 4
    parts = cut_at_pauses(item, longest)
    assert len(parts) >= 4
    assert "".join(map(spoken, parts)) == phonemes
    where = 1000
    for part in parts:
        assert sum(part.durations) == part.num_frames
        assert len(part.durations) == len(part.token_ids)
        assert min(part.durations) >= 1
        assert where <= part.start_frame <= where + 40  # in order, at most a pause apart
        where = part.start_frame + part.num_frames
    assert where == 1000 + item.num_frames


NATS = torch.randn(80, 100, generator=torch.Generator().manual_seed(0)) * 2 - 2
CENTRES = band_centres(MelConfig())


class Fixed(random.Random):
    """Says yes to the effects that are asked for, in the order they are asked: by the border."""

    def __init__(self, *wanted: int) -> None:
        super().__init__(0)
        self.wanted, self.asked = wanted, 0

    def random(self) -> float:
        self.asked += 1
        return 0.0 if self.asked - 1 in self.wanted else 0.99

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def choice(self, seq: Any) -> Any:
        return seq[0]


def degraded(nats: torch.Tensor, *wanted: int) -> torch.Tensor:
    flow = FLOW
    out = degrade((nats - flow.mean) / flow.std, flow, CENTRES, Fixed(*wanted))
    return out * flow.std + flow.mean


FLOORED = NATS.clamp(min=FLOW.log_floor)


def test_without_an_effect_a_reference_stays_as_it_is() -> None:
    torch.testing.assert_close(degraded(FLOORED), FLOORED, rtol=0, atol=1e-5)


def test_noise_fills_what_is_quiet_and_leaves_what_is_loud() -> None:
    nats = torch.full((80, 100), FLOW.log_floor)
    nats[::2] = 2.0
    out = degraded(nats, 0)
    level = 2.0 - math.log(2) - 22.5 / 8.69  # 22.5 dB below the mean magnitude
    assert out[1::2, :3].mean().item() == pytest.approx(level, abs=0.2)
    assert out[1::2, -3:].mean().item() == pytest.approx(level - 0.75, abs=0.2)  # the tilt
    assert (out[::2] - 2.0).abs().max() < 0.5


def test_reverberation_falls_by_60_db_in_its_time() -> None:
    nats = torch.full((80, 100), -40.0)
    nats[10] = 3.0
    flow = dataclasses.replace(FLOW, floor=1e-7)
    out = degrade((nats - flow.mean) / flow.std, flow, CENTRES, Fixed(1)) * flow.std + flow.mean
    assert out[10, 0].item() == pytest.approx(3.0, abs=0.01)
    assert (out[:10] < -15).all()  # nothing before the sound
    slope = (out[12] - out[32]).mean().item() / 20  # nats a frame
    assert slope * 0.3 * FRAME_RATE == pytest.approx(math.log(1000), rel=0.05)


def test_a_band_limit_leaves_the_floor_above() -> None:
    out = degraded(FLOORED, 2)
    above = CENTRES >= 3400
    torch.testing.assert_close(out[:, ~above], FLOORED[:, ~above], rtol=0, atol=1e-5)
    assert (out[:, above] - FLOW.log_floor).abs().max() < 1e-5


def test_no_effect_goes_below_the_floor_and_draws_decide() -> None:
    normal = (FLOORED - FLOW.mean) / FLOW.std
    outs = [degrade(normal, FLOW, CENTRES, random.Random(s)) for s in range(30)]
    floor = (FLOW.log_floor - FLOW.mean) / FLOW.std
    assert all(torch.isfinite(o).all() and o.min() >= floor - 1e-5 for o in outs)
    assert torch.equal(outs[7], degrade(normal, FLOW, CENTRES, random.Random(7)))
    untouched = sum(torch.allclose(o, normal, atol=1e-5) for o in outs)
    assert untouched <= 10

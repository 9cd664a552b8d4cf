"""Cached paths of the teacher: what they hold, and that a stop in the middle costs nothing."""

import dataclasses
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from stepflow_tts.config import FlowConfig, preset
from stepflow_tts.errors import InputError, OptionError
from stepflow_tts.flow import guide
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS, Tokenizer
from stepflow_tts.training.data import Batch, Corpus, DataConfig
from stepflow_tts.training.trajectories import TrajectoryConfig, make_trajectories, solve
from stepflow_tts.training.trajectory_data import (
    Trajectories,
    Trajectory,
    noise_of,
    read_trajectories,
)
from stepflow_tts.training.utterances import Utterance, write_utterances

M = 100
CONFIG = TrajectoryConfig(hours=4 / 3600, num_steps=4, noise_scale=0.8)  # 375 frames


@pytest.fixture(scope="module")
def teacher() -> AcousticModel:
    model = AcousticModel(preset("test"), conditioning="time", num_symbols=len(DEFAULT_SYMBOLS))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.1, generator=generator)
        model.durations.output.bias.fill_(1.5)
    return model.eval()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Six utterances of 40 to 65 frames."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = np.random.default_rng(0)
    utterances = []
    for i in range(6):
        n = 40 + 5 * i
        u = Utterance(
            id=f"u{i}",
            corpus="speech",
            speaker="a",
            text="x",
            language="en-us",
            source_sample_rate=24000.0,
            start_frame=sum(v.num_frames for v in utterances),
            num_frames=n,
            start_sample=0,
            num_samples=0,
            phonemes="ab",
            token_ids=Tokenizer().encode("ab"),
            durations=[4, 20, n - 30, 6],
            split="train",
        )
        utterances.append(u)
    total = sum(u.num_frames for u in utterances)
    (folder / "mels.f16").write_bytes(rng.normal(-2, 2, (total, M)).astype(np.float16).tobytes())
    write_utterances(folder, utterances)
    config = DataConfig(batch_seconds=1.5, reference_seconds=(0.5, 0.7), long_reference_seconds=0.8)
    return Corpus([folder], "train", config, FlowConfig(mean=-2.0, std=2.0), 0)


def make(
    teacher: AcousticModel,
    corpus: Corpus,
    folder: Path,
    config: TrajectoryConfig = CONFIG,
    texts: tuple[str, ...] = (),
    seed: int = 3,
) -> list[Trajectory]:
    make_trajectories(teacher, corpus, texts, folder, config, symbols=DEFAULT_SYMBOLS, seed=seed)
    return read_trajectories(folder)


def contents(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "states.f16").read_bytes(), (folder / "trajectories.jsonl").read_bytes()


def test_noise_comes_back_from_its_seed_and_scale() -> None:
    a = noise_of(7, 500, M, 1.0)
    assert torch.equal(a, noise_of(7, 500, M, 1.0))
    assert not torch.equal(a, noise_of(8, 500, M, 1.0))
    assert a.std().item() == pytest.approx(1.0, abs=0.01)
    torch.testing.assert_close(noise_of(7, 500, M, 0.5), 0.5 * a)


def lengths_of(batch: Batch) -> list[int]:
    return batch.durations.sum(1).tolist()


def test_states_are_guided_euler_steps_and_padding_has_no_part(
    teacher: AcousticModel, corpus: Corpus
) -> None:
    batch = corpus.batch(1)
    lengths = lengths_of(batch)
    assert len(set(lengths)) > 1
    config = dataclasses.replace(CONFIG, num_steps=8, cfg_strength=0.7)
    seeds = list(range(len(lengths)))
    states = solve(teacher, batch, seeds, config)
    assert states.shape == (5, len(lengths), max(lengths), M)
    for i, n in enumerate(lengths):
        count = int(batch.token_mask[i].sum())
        with torch.no_grad():
            voice = teacher.encode_voice(batch.reference[i : i + 1])
            encoding = teacher.encode_text(batch.token_ids[i : i + 1, :count], voice)
            conditions = teacher.frame_conditions(encoding, batch.durations[i : i + 1, :count])
            x = noise_of(i, n, M, 0.8)[None]
            kept = [x]
            for k in range(8):
                t = torch.tensor([k / 8])
                v_c = teacher.velocity(x, t, conditions, voice)
                v_0 = teacher.velocity(x, t, teacher.null_conditions(1, n), teacher.null_voice(1))
                x = x + guide(v_c, v_0, 0.7) / 8
                if k % 2:
                    kept.append(x)
        torch.testing.assert_close(states[:, i : i + 1, :n], torch.stack(kept), rtol=0, atol=1e-4)


def test_what_is_written_is_what_is_read(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path
) -> None:
    found = make(teacher, corpus, tmp_path / "t")
    assert sum(t.num_frames for t in found) >= 375
    read = Trajectories(tmp_path / "t", 10.0, 0)
    batch = read.collate(found[:3])
    for i, t in enumerate(found[:3]):
        n, count = t.num_frames, len(t.token_ids)
        assert sum(t.durations) == n
        assert batch.frame_mask[i].sum() == n
        assert batch.token_mask[i].sum() == count
        assert batch.token_ids[i, :count].tolist() == t.token_ids
        assert batch.durations[i, :count].tolist() == t.durations
        assert torch.equal(batch.states[0, i, :n], noise_of(t.seed, n, M, 0.8))
        assert batch.states[:, i, n:].abs().sum() == 0
        # solved again from what is on disk; references and states are float16 there
        one = read.collate([t])
        again = Batch(
            x1=torch.zeros(1, n, M),
            frame_mask=one.frame_mask[:, :n],
            band_mask=torch.ones(1, M, dtype=torch.bool),
            token_ids=one.token_ids,
            token_mask=one.token_mask,
            durations=one.durations,
            reference=one.reference,
        )
        states = solve(teacher, again, [t.seed], CONFIG)
        torch.testing.assert_close(one.states[:, :, :n], states, rtol=0, atol=5e-3)
        torch.testing.assert_close(batch.states[:, i, :n], one.states[:, 0, :n])
    shortest = min(t.reference_frames for t in found[:3])
    assert batch.reference.shape == (3, shortest, M)


def test_references_are_the_corpus_s(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path
) -> None:
    found = make(teacher, corpus, tmp_path / "t")
    wanted = corpus.batch(3 * 1_000_003).reference.half().float()
    read = Trajectories(tmp_path / "t", 10.0, 0)
    assert torch.equal(read.collate(found[:1]).reference, wanted[:1])


def test_made_again_it_is_the_same_and_another_seed_is_not(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path
) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make(teacher, corpus, tmp_path / name, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a")[1] != contents(tmp_path / "c")[1]


def test_enough_is_enough_and_more_is_added(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path
) -> None:
    make(teacher, corpus, tmp_path / "t")
    before = contents(tmp_path / "t")
    make(teacher, corpus, tmp_path / "t")
    assert contents(tmp_path / "t") == before
    more = dataclasses.replace(CONFIG, hours=8 / 3600)
    make(teacher, corpus, tmp_path / "t", more)
    make(teacher, corpus, tmp_path / "whole", more)
    assert contents(tmp_path / "t") == contents(tmp_path / "whole")


def cut_points(folder: Path) -> Iterator[tuple[str, int]]:
    states, lines = contents(folder)
    yield "states.f16", 2 * len(states)  # much was written after the last line
    yield "trajectories.jsonl", len(lines) - 7  # the last line is half there
    yield "trajectories.jsonl", 5  # nothing whole is there


@pytest.mark.parametrize("case", range(3))
def test_a_stop_in_the_middle_is_made_good(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path, case: int
) -> None:
    folder = tmp_path / "t"
    whole = make(teacher, corpus, folder)
    name, size = list(cut_points(folder))[case]
    if name == "states.f16":
        lines = contents(folder)[1].splitlines(keepends=True)
        (folder / "trajectories.jsonl").write_bytes(b"".join(lines[:-1]))
    os.truncate(folder / name, size)
    found = make(teacher, corpus, folder)
    assert sum(t.num_frames for t in found) >= 375
    kept = [t for t in whole if t in found]
    assert len(kept) >= (len(whole) - 1 if case < 2 else 0)
    assert len({t.seed for t in found}) == len(found)  # nothing twice
    for line in contents(folder)[1].splitlines():
        json.loads(line)
    end = found[-1].offset + M * (found[-1].reference_frames + 4 * found[-1].num_frames)
    assert len(contents(folder)[0]) == 2 * end
    read = Trajectories(folder, 10.0, 0)
    for t in found:
        one = read.collate([t])
        batch = Batch(
            torch.zeros(1, t.num_frames, M),
            one.frame_mask,
            torch.ones(1, M, dtype=torch.bool),
            one.token_ids,
            one.token_mask,
            one.durations,
            one.reference,
        )
        again = solve(teacher, batch, [t.seed], CONFIG)
        torch.testing.assert_close(one.states[:, :, : t.num_frames], again, rtol=0, atol=5e-3)


def test_texts_without_a_recording_take_predicted_durations(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, text_share=1.0, slowest=1.0, fastest=1.0)
    found = make(teacher, corpus, tmp_path / "t", config, texts=("Yes, two of them.",))
    symbols = Tokenizer()
    assert {symbols.decode(t.token_ids) for t in found} <= {
        "jˈɛs, tˈuː ʌv ðˌɛm.",
        "jˈɛs, tˈuː ɒv ðˌɛm.",
    }
    for t in found:
        assert sum(t.durations) == t.num_frames
        phones = [
            d
            for i, d in zip(t.token_ids, t.durations, strict=True)
            if DEFAULT_SYMBOLS[i] in "jɛstuvðm"
        ]
        assert min(phones) >= 1
        assert 2 * len(t.token_ids) < t.num_frames < 6 * len(t.token_ids)  # e^1.5 - 1 a token
    slow = dataclasses.replace(config, slowest=0.5, fastest=0.5)
    slower = make(teacher, corpus, tmp_path / "slow", slow, texts=("Yes, two of them.",))
    assert slower[0].num_frames == pytest.approx(2 * found[0].num_frames, rel=0.1)


def test_a_share_is_recordings(teacher: AcousticModel, corpus: Corpus, tmp_path: Path) -> None:
    """Batch by batch, as the draws of each batch's first number say."""
    config = dataclasses.replace(CONFIG, hours=15 / 3600, text_share=0.4)
    found = make(teacher, corpus, tmp_path / "t", config, texts=("Yes.",))
    is_text = [t.token_ids != Tokenizer().encode("ab") for t in found]
    assert 0 < sum(is_text) < len(is_text)
    at = 0
    while at < len(found):
        count = len(corpus.batch(3 * 1_000_003 + at).x1)
        expected = random.Random(f"3/{at}").random() < 0.4
        assert is_text[at : at + count] == [expected] * count
        at += count
    assert at == len(found)


@pytest.mark.parametrize("num_steps", [0, 3, 10, -4])
def test_steps_that_miss_a_kept_state_are_refused(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path, num_steps: int
) -> None:
    with pytest.raises(OptionError, match=f"num_steps is {num_steps}; it must be a multiple of 4"):
        make(teacher, corpus, tmp_path / "t", dataclasses.replace(CONFIG, num_steps=num_steps))
    assert not (tmp_path / "t").exists()


def test_a_folder_without_trajectories_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no trajectories"):
        read_trajectories(tmp_path)
    (tmp_path / "trajectories.jsonl").touch()
    with pytest.raises(InputError, match="holds no trajectories"):
        Trajectories(tmp_path, 10.0, 0)


def test_batches_are_a_function_of_the_step_and_alike_in_length(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path
) -> None:
    make(teacher, corpus, tmp_path / "t", dataclasses.replace(CONFIG, hours=12 / 3600))
    first, second = (Trajectories(tmp_path / "t", 2.0, 5) for _ in range(2))
    wanted = [first.batch(s) for s in range(5)]
    for s in (4, 0, 2):
        assert all(torch.equal(a, b) for a, b in zip(second.batch(s), wanted[s], strict=True))
    assert not all(torch.equal(b.states[-1, 0, 0], wanted[0].states[-1, 0, 0]) for b in wanted[1:])
    for b in wanted:
        lengths = b.frame_mask.sum(1)
        assert len(lengths) == len(set(b.states[0, :, 0, 0].tolist()))  # none twice
        assert lengths.sum() <= 2.0 * 93.75 + 65
        assert lengths.max() - lengths.min() <= 15


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"noise_scale": 0.67}, r"noise_scale = 0\.8, .* the recipe says noise_scale = 0\.67"),
        ({"cfg_strength": 0.0}, r"cfg_strength = 0\.7, .* says .* cfg_strength = 0\.0"),
        ({"num_steps": 8}, r"num_steps = 4, and the recipe says .* num_steps = 8"),
    ],
)
def test_other_settings_are_refused(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path, change: dict[str, float], said: str
) -> None:
    make(teacher, corpus, tmp_path / "t")
    before = contents(tmp_path / "t")
    more = dataclasses.replace(CONFIG, hours=8 / 3600, **change)
    with pytest.raises(OptionError, match=said):
        make(teacher, corpus, tmp_path / "t", more)
    assert contents(tmp_path / "t") == before
    assert Trajectories(tmp_path / "t", 10.0, 0).noise_scale == 0.8
    # where there is none yet, they can still be changed
    (tmp_path / "t" / "trajectories.jsonl").write_text("")
    make(teacher, corpus, tmp_path / "t", more)
    assert contents(tmp_path / "t") != before


@pytest.mark.parametrize("content", [None, "{", '{"noise_scale": 1.0}'])
def test_trajectories_that_do_not_say_how_they_were_made_are_refused(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path, content: str | None
) -> None:
    make(teacher, corpus, tmp_path / "t")
    settings = tmp_path / "t" / "settings.json"
    settings.unlink() if content is None else settings.write_text(content)
    for use in (
        lambda: make(teacher, corpus, tmp_path / "t"),
        lambda: Trajectories(tmp_path / "t", 1, 0),
    ):
        with pytest.raises(InputError, match=r"settings\.json does not say how .* Remove"):
            use()


def test_half_precision_is_near_and_not_the_same(teacher: AcousticModel, corpus: Corpus) -> None:
    batch = corpus.batch(1)
    seeds = list(range(len(batch.x1)))
    whole = solve(teacher, batch, seeds, CONFIG)
    half = solve(teacher, batch, seeds, dataclasses.replace(CONFIG, precision="bfloat16"))
    assert half.dtype == torch.float32
    assert torch.equal(half[0], whole[0])
    difference = (half[-1] - whole[-1]).square().mean().sqrt()
    moved = (whole[-1] - whole[0]).square().mean().sqrt()
    assert 0 < difference < 0.02 * moved


def test_hours_are_those_of_the_frames(
    teacher: AcousticModel, corpus: Corpus, tmp_path: Path
) -> None:
    found = make(teacher, corpus, tmp_path / "t")
    read = Trajectories(tmp_path / "t", 10.0, 0)
    assert read.hours == pytest.approx(sum(t.num_frames for t in found) / 93.75 / 3600)

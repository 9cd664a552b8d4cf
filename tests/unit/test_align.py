"""Durations for recordings: labels, degradation, the classifier's task, and a folder from end to end.

Here every phone is a loud band of its own, so that a classifier can be written down by hand.
"""

import dataclasses
import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stepflow_tts.config import MelConfig
from stepflow_tts.errors import CheckpointFormatError, InputError
from stepflow_tts.text.phonemize import phonemize
from stepflow_tts.text.tokenizer import BOS, EOS, Tokenizer
from stepflow_tts.training.align import AlignConfig, align, reject, settle, spoken_form
from stepflow_tts.training.aligner_data import (
    CROP_FRAMES,
    IGNORED,
    MIN_PHONE_FRAMES,
    Labelled,
    as_recorded,
    frame_labels,
    settle_silence,
)
from stepflow_tts.training.aligner_model import PAUSE, Aligner, can_pause, is_optional
from stepflow_tts.training.aligner_training import (
    ALIGNER_FILE,
    AlignerTask,
    check_boundaries,
    trained_aligner,
)
from stepflow_tts.training.forced_alignment import Score, lay
from stepflow_tts.training.utterances import Utterance, read_utterances, write_utterances

TOKENIZER = Tokenizer()
SYMBOLS = TOKENIZER.symbols
BANDS = {s: 2 + i for i, s in enumerate("abdefhijklmnopstuvwzæðŋɐɑɔəɚɛɜɡɪɹɾʃʊʌʒθᵻ")}
SILENCE, LOUD = -16.0, 2.0


def spectra(symbols, durations):
    """(T, M) float16: each phone's band loud, everything else silent."""
    rows = np.full((sum(durations), 100), SILENCE, np.float16)
    for band, first, frames in zip(
        [BANDS.get(s) for s in symbols], np.cumsum(durations) - durations, durations, strict=True
    ):
        if band is not None:
            rows[first : first + frames, band - 1 : band + 2] = [LOUD - 3, LOUD, LOUD - 3]
    return rows


def labelled(phonemes, durations, sounding=None):
    """An utterance of `phonemes` that really lasts `sounding` frames a token."""
    symbols = [BOS, *phonemes, EOS]
    mel = spectra(symbols, sounding or durations)
    return Labelled(mel, TOKENIZER.encode(phonemes), list(durations))


def perfect_aligner():
    """A classifier that reads the band: what a trained one does with speech."""
    model = Aligner(len(TOKENIZER))
    state = {k: torch.zeros_like(v) for k, v in model.state_dict().items()}
    for symbol, band in BANDS.items():
        state["stem.weight"][band, band, 2] = 1.0
        state["head.1.weight"][TOKENIZER.encode(symbol)[1], band] = 2.0
    state["head.0.weight"] += 1.0
    state["head.1.bias"][PAUSE] = 5.0
    model.load_state_dict(state)
    return model.eval()


def test_silence_after_a_phone_belongs_to_the_pause():
    symbols = [BOS, "a", "n", ",", " ", "i", "ː", ".", EOS]
    stated = [4, 6, 12, 2, 3, 10, 8, 2, 5]
    sounding = [4, 6, 7, 7, 3, 5, 0, 15, 5]
    mel = spectra(symbols, sounding)
    settled = settle_silence(mel, symbols, stated)
    assert settled == sounding
    assert settle_silence(mel, symbols, settled) == settled


def test_a_phone_without_sound_keeps_its_least():
    symbols = [BOS, "a", "t", ".", EOS]
    mel = spectra(symbols, [4, 6, 0, 20, 5])
    assert settle_silence(mel, symbols, [4, 6, 12, 8, 5]) == [4, 6, MIN_PHONE_FRAMES, 17, 5]


def test_silence_at_a_lone_space_is_not_moved():
    symbols = [BOS, "a", " ", "i", EOS]
    mel = spectra(symbols, [4, 5, 11, 5, 5])
    assert settle_silence(mel, symbols, [4, 8, 8, 5, 5]) == [4, 8, 8, 5, 5]


def test_frame_labels():
    utterance = labelled("a, i", [3, 2, 2, 2, 2, 3], sounding=[2, 3, 2, 1, 2, 4])
    a, comma, space, i = TOKENIZER.encode("a, i")[1:-1]
    assert comma != space
    expected = [PAUSE, PAUSE, IGNORED, a, a, PAUSE, PAUSE, PAUSE, space, i, i, PAUSE, PAUSE, PAUSE]
    assert frame_labels(utterance, SYMBOLS).tolist() == expected


def test_batches_depend_on_the_step_alone_and_their_labels_follow_the_speed():
    rng = np.random.default_rng(0)
    phonemes = "".join(rng.choice(list(BANDS), 60))
    utterance = labelled(phonemes, [9, *rng.integers(4, 20, 60).tolist(), 9])
    task = AlignerTask(Aligner(len(SYMBOLS)), [utterance], [utterance], SYMBOLS)
    batch, again, other = task.batch(3), task.batch(3), task.batch(4)
    torch.testing.assert_close(batch, again)
    assert not torch.equal(batch.log_mel, other.log_mel)
    assert batch.labels.shape == (16, CROP_FRAMES)
    # the loudest band names the phone, but for the shift by which vocal tracts differ
    loudest = batch.log_mel.argmax(2).float()
    spoken = batch.labels > PAUSE
    band = torch.tensor([float(BANDS.get(s, 0)) for s in SYMBOLS])[batch.labels.clamp(min=0)]
    close = (loudest - band).abs() <= 0.13 * band + 1.5
    assert close[spoken].float().mean() > 0.8


def test_degraded_speech_is_noisier_and_keeps_its_input():
    clean = torch.full((8, 50, 100), SILENCE)
    clean[:, 20:30, 10:60] = LOUD
    before = clean.clone()
    heard = as_recorded(clean, torch.Generator().manual_seed(0))
    assert torch.equal(clean, before)
    assert heard.shape == clean.shape
    assert torch.isfinite(heard).all()
    assert (heard[:, :15, 10:40].std(dim=1).mean(1) > 0.2).all()  # noise in the silence
    assert (heard[:, 22:28, 20:40].mean((1, 2)) > heard[:, :15, 20:40].mean((1, 2))).all()
    tail = heard[:, 31:34, 15:40].mean((1, 2)) - heard[:, 12:15, 15:40].mean((1, 2))
    assert (tail > 1).sum() >= 3  # rooms, in about half of them


def test_the_task_learns():
    torch.manual_seed(0)
    utterance = labelled("abab" * 30, [5, *[6] * 120, 5])
    model = Aligner(len(SYMBOLS), dim=16)
    task = AlignerTask(model, [utterance], [utterance], SYMBOLS)
    before = task.validate(model, 0)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for step in range(6):
        for loss in task.losses(task.batch(step), step):
            optimizer.zero_grad()
            loss.value.backward()
            optimizer.step()
    after = task.validate(model, 6)
    assert after["cross_entropy"] < 0.7 * before["cross_entropy"]


def test_boundaries_are_exact_where_the_classifier_is():
    utterances = [labelled("has ðə bɑd", [9, 5, 7, 8, 4, 6, 5, 3, 9, 4, 5, 8])]
    check = check_boundaries(perfect_aligner(), utterances, TOKENIZER)
    assert (check.num_boundaries, check.within_30_ms, check.median_ms) == (8, 1.0, 0.0)
    late = [u._replace(durations=[13, *u.durations[1:-1], 4]) for u in utterances]
    check = check_boundaries(perfect_aligner(), late, TOKENIZER)  # 4 frames are 43 ms
    assert check.within_30_ms == 0.0
    assert check.median_ms == pytest.approx(42.67, abs=0.01)


def test_stress_marks_and_punctuation_are_optional_and_phones_are_not():
    for symbol in [BOS, EOS, " ", ",", "ˈ", "ː", "\u0329"]:
        assert is_optional(symbol)
    for symbol in BANDS:
        assert not is_optional(symbol)
    assert [s for s in [BOS, EOS, " ", ".", '"', "ˈ", "ː", "a"] if not can_pause(s)] == [
        "ˈ",
        "ː",
        "a",
    ]


def test_capitals_are_not_spelled_out_and_ends_stay_as_they_are():
    assert phonemize(spoken_form("HE SAW US"), "en-us") == phonemize("he saw us", "en-us")
    assert phonemize(spoken_form("He saw US"), "en-us") != phonemize("he saw us", "en-us")
    assert spoken_form("he saw us?") == "he saw us?"
    assert spoken_form("he saw us.") == "he saw us."


def test_thresholds():
    config = AlignConfig(least_fit=-2.0, least_window=-3.0, phones_a_second=(5.0, 25.0))
    good = Score(-1.0, -2.0, 12.0)
    assert reject(good, config) is None
    reasons = {
        reject(good._replace(mean=-2.1), config),
        reject(good._replace(window=-3.1), config),
        reject(good._replace(phones_a_second=26.0), config),
    }
    assert len(reasons) == 3
    assert None not in reasons
    assert reject(good._replace(phones_a_second=4.0), config) == reject(
        good._replace(phones_a_second=26.0), config
    )


@pytest.fixture
def folder(tmp_path):
    """Prepared data: 12 utterances with durations, then recordings without."""
    rng = np.random.default_rng(1)
    utterances, mels, start = [], [], 0

    def add(text, phonemes, durations, stated, dropped=None):
        nonlocal start
        mel = spectra([BOS, *phonemes, EOS], durations)
        utterances.append(
            Utterance(
                id=f"u{len(utterances):02d}",
                corpus="test",
                speaker="s",
                text=text,
                language="en-us",
                source_sample_rate=24000.0,
                start_frame=start,
                num_frames=len(mel),
                start_sample=start * 256,
                num_samples=(len(mel) - 1) * 256,
                phonemes=phonemes if stated else None,
                token_ids=TOKENIZER.encode(phonemes) if stated else None,
                durations=list(stated) if stated else None,
                split="train",
                dropped=dropped,
            )
        )
        mels.append(mel)
        start += len(mel)

    for _ in range(12):
        durations = [9, 6, 7, 6, 8, 6, 30, 8]
        stated = [9, 6, 7, 6, 8, 26, 10, 8]
        add("known", "".join(rng.choice(list(BANDS), 5)) + ".", durations, stated)
    phonemes = phonemize("the man has a bad hand", "en-us")
    lasting = [9, *(0 if s in "ˈˌː" else 3 if s == " " else 7 for s in phonemes), 9]
    long_pause = list(lasting)
    long_pause[1 + phonemes.index(" ")] = 40
    add("THE MAN HAS A BAD HAND", phonemes, lasting, None)
    add("the man has a bad hand", phonemes, long_pause, None)
    add("please look at that", phonemes, lasting, None)  # another text than the sound
    add("the man has a bad hand " * 15, phonemes, lasting, None)
    add("...", phonemes, lasting, None)
    add("the man has a bad hand", phonemes, lasting, None, dropped="no text")
    np.concatenate(mels).tofile(tmp_path / "mels.f16")
    write_utterances(tmp_path, utterances)
    save_file(
        perfect_aligner().state_dict(),
        tmp_path / ALIGNER_FILE,
        {"symbols": json.dumps(SYMBOLS)},
    )
    return tmp_path


def test_a_prepared_folder_from_end_to_end(folder, caplog):
    before = {u.id: u for u in read_utterances(folder)}
    with caplog.at_level(logging.INFO, logger="stepflow_tts"):
        report = align(folder, AlignConfig(held_back=3))
    after = {u.id: u for u in read_utterances(folder)}
    assert "within 30 ms" in caplog.text
    assert report.check.within_30_ms == 1.0
    assert report.num_aligned == 2
    assert list(after) == list(before)
    for u in after.values():
        if u.durations:
            assert sum(u.durations) == u.num_frames == 1 + u.num_samples // MelConfig().hop_length
            assert len(u.durations) == len(u.token_ids)
    known = after["u00"]  # silence settled, and all but 107 ms of it cut off
    assert known.durations == [9, 6, 7, 6, 8, 6, 5, 5]
    phonemes = after["u12"].phonemes
    assert phonemes == phonemize("the man has a bad hand", "en-us")
    expected = [9, *(0 if s in "ˈˌː" else 3 if s == " " else 7 for s in phonemes), 9]
    assert after["u12"].durations == expected
    assert after["u13"].phonemes == phonemes.replace(" ", ", ", 1)
    assert after["u13"].durations[3:5] == [35, 5]
    assert [after[f"u{i}"].dropped for i in (14, 15, 16, 17)] == [
        "text does not fit the sound",
        "too short for its text",
        "text cannot be spoken",
        "no text",
    ]
    assert report.dropped == {
        "text does not fit the sound": 1,
        "too short for its text": 1,
        "text cannot be spoken": 1,
        "no text": 1,
    }
    assert after["u17"] == before["u17"]


def test_a_second_run_changes_nothing(folder):
    align(folder, AlignConfig(held_back=3))
    first = (folder / "utterances.jsonl").read_bytes()
    weights = (folder / ALIGNER_FILE).stat().st_mtime_ns
    align(folder, AlignConfig(held_back=3))
    assert (folder / "utterances.jsonl").read_bytes() == first
    assert (folder / ALIGNER_FILE).stat().st_mtime_ns == weights


def test_aligned_recordings_do_not_count_as_known(folder):
    align(folder, AlignConfig(held_back=3))
    utterances = read_utterances(folder)
    assert utterances[12].durations
    known = [dataclasses.replace(u, dropped="taken away") for u in utterances[:12]]
    write_utterances(folder, known + utterances[12:])
    with pytest.raises(InputError, match="0 utterances with known durations"):
        align(folder)


def test_a_blind_aligner_is_refused_and_no_recording_gets_durations(folder):
    assert settle(folder) == 12
    assert settle(folder) == 0
    state = perfect_aligner().state_dict()
    state["head.1.weight"].zero_()
    save_file(state, folder / ALIGNER_FILE, {"symbols": json.dumps(SYMBOLS)})
    before = (folder / "utterances.jsonl").read_bytes()
    with pytest.raises(InputError, match="within 30 ms"):
        align(folder, AlignConfig(held_back=3))
    assert (folder / "utterances.jsonl").read_bytes() == before


def test_no_known_durations(folder):
    utterances = [dataclasses.replace(u, durations=None) for u in read_utterances(folder)]
    write_utterances(folder, utterances)
    with pytest.raises(InputError, match="0 utterances with known durations"):
        align(folder)


def test_a_trained_aligner_serves_recordings_alone(folder, tmp_path):
    """Half precision is enough; there is nothing to check it with."""
    half = {k: v.half() for k, v in perfect_aligner().state_dict().items()}
    trained = tmp_path / "trained.safetensors"
    save_file(half, trained, {"symbols": json.dumps(SYMBOLS)})
    (folder / ALIGNER_FILE).unlink()
    expected = [9, *(0 if s in "ˈˌː" else 3 if s == " " else 7 for s in "ðə mˈæn"), 9]
    write_utterances(folder, read_utterances(folder)[12:])
    report = align(folder, aligner=trained)
    assert (report.check, report.degraded, report.num_aligned) == (None, None, 2)
    first = read_utterances(folder)[0]
    assert first.durations[: len(expected) - 1] == expected[:-1]
    assert (folder / ALIGNER_FILE).read_bytes() == trained.read_bytes()
    with pytest.raises(InputError, match=r"no aligner .*none\.safetensors"):
        align(folder, aligner=tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a tensor file", "not an aligner"), (None, "other phoneme symbols")],
)
def test_a_kept_aligner_that_cannot_be_used(folder, content, message):
    if content is None:
        state = perfect_aligner().state_dict()
        save_file(state, folder / ALIGNER_FILE, {"symbols": json.dumps(SYMBOLS[::-1])})
    else:
        (folder / ALIGNER_FILE).write_bytes(content)
    with pytest.raises(CheckpointFormatError, match=message):
        align(folder, AlignConfig(held_back=3))


def test_a_new_aligner_is_kept(folder):
    (folder / ALIGNER_FILE).unlink()
    utterance = labelled("ab" * 20, [5, *[6] * 40, 5])
    sets = ([utterance], [utterance], TOKENIZER)
    model = trained_aligner(folder, *sets, num_updates=1, seed=0)
    kept = trained_aligner(folder, *sets, num_updates=1, seed=0)
    for key, value in model.state_dict().items():
        assert torch.equal(value, kept.state_dict()[key])


def test_a_text_longer_than_the_sound_has_no_alignment():
    utterance = labelled("ab", [2, 2, 2, 2])
    assert lay(utterance.log_mel, "abababababab", perfect_aligner(), TOKENIZER) is None

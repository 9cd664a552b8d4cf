"""From a manifest to a prepared folder: what is written, what is left out, and nothing by halves."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from stepflow_tts.audio.effects import active_level_db
from stepflow_tts.audio.mel import log_mel
from stepflow_tts.config import MelConfig
from stepflow_tts.errors import InputError, OptionError
from stepflow_tts.text.tokenizer import Tokenizer
from stepflow_tts.training.prepare import frames_of, is_held_out, prepare, split_by_utterance
from stepflow_tts.training.utterances import (
    Utterance,
    open_audio,
    open_mels,
    read_utterances,
    write_utterances,
)

RATE = 24_000
MEL = MelConfig()
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, voice_audio: Callable[..., Any]) -> Make:
    """Writes clips and their manifest, and gives back the manifest's path."""

    def write(*entries: dict[str, Any], corpus: str = "speech") -> Path:
        folder = tmp_path / corpus
        folder.mkdir(exist_ok=True)
        lines = []
        for i, entry in enumerate(entries):
            plain = {
                k: v for k, v in entry.items() if k not in ("pitch", "seconds", "rate", "gain")
            }
            rate = entry.get("rate", RATE)
            samples = voice_audio(entry.get("pitch", 120.0), entry.get("seconds", 1.0), rate)
            silence = [np.zeros(round(ms / 1000 * rate)) for ms in entry.get("pad_ms", (0, 0))]
            samples = entry.get("gain", 1.0) * np.concatenate([silence[0], samples, silence[1]])
            soundfile.write(folder / f"{i}.wav", samples, rate, subtype="FLOAT")
            base = {"id": f"u{i}", "audio": f"{i}.wav", "speaker": "ann", "text": "Ada."}
            lines.append(json.dumps(base | plain, ensure_ascii=False))
        manifest = folder / "manifest.jsonl"
        manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return manifest

    return write


def known(**changes: Any) -> dict[str, Any]:
    """An entry of 1 s of speech whose durations are known, with silence around it."""
    return {
        "phonemes": "eɪdə",
        "durations_ms": [300.0, 200.0, 150.0, 350.0],
        "pad_ms": [300.0, 50.0],
    } | changes


def waveform_of(folder: Path, u: Utterance) -> torch.Tensor:
    rows = open_audio(folder)[u.start_sample : u.start_sample + u.num_samples]
    return torch.from_numpy(rows.astype(np.float32)) / 32767


def test_mels_are_those_of_the_audio_beside_them(make: Make, tmp_path: Path) -> None:
    manifest = make(known(), {"seconds": 1.3, "rate": 16_000, "gain": 0.1}, known(pitch=220.0))
    counts = prepare([manifest], tmp_path / "out")
    assert counts == {"written": 3}
    found = read_utterances(tmp_path / "out")
    mels = open_mels(tmp_path / "out", MEL)
    frames = samples = 0
    for u in found:
        assert (u.start_frame, u.start_sample) == (frames, samples)
        assert u.num_frames == 1 + u.num_samples // 256
        waveform = waveform_of(tmp_path / "out", u)
        assert active_level_db(waveform, RATE) == pytest.approx(-26, abs=0.1)
        expected = log_mel(waveform[None], MEL)[0]
        got = torch.from_numpy(mels[frames : frames + u.num_frames].astype(np.float32))
        loud = expected > -2  # below, the rounding of the audio to int16 shows
        assert loud.float().mean() > 0.2
        torch.testing.assert_close(got[loud], expected[loud], rtol=0, atol=0.02)
        frames, samples = frames + u.num_frames, samples + u.num_samples
    assert (len(mels), len(open_audio(tmp_path / "out"))) == (frames, samples)


def test_lines_tell_what_is_known(make: Make, tmp_path: Path) -> None:
    manifest = make(
        known(accent="en-gb", source_sample_rate=16_000),
        {"rate": 16_000, "speaker": "bob"},
        {"text_kind": "partial"},
        {"text_kind": "none"},
    )
    prepare([manifest], tmp_path / "out")
    first, second, third, fourth = read_utterances(tmp_path / "out")
    assert (first.id, first.corpus, first.speaker, first.text) == ("u0", "speech", "ann", "Ada.")
    assert (first.language, first.source_sample_rate, first.dropped) == ("en-gb", 16_000, None)
    assert first.phonemes == "eɪdə"
    assert first.token_ids == Tokenizer().encode("eɪdə")
    assert (second.phonemes, second.token_ids, second.durations) == (None, None, None)
    assert (second.speaker, second.language, second.source_sample_rate) == ("bob", "en-us", 16_000)
    assert (third.dropped, fourth.dropped) == ("no text", "no text")


def test_outer_silence_beyond_a_tenth_of_a_second_goes(make: Make, tmp_path: Path) -> None:
    prepare([make(known())], tmp_path / "out")
    u = read_utterances(tmp_path / "out")[0]
    assert u.num_samples == round((0.1 + 1.0 + 0.05) * RATE)
    waveform = waveform_of(tmp_path / "out", u).abs()
    assert waveform[: round(0.099 * RATE)].max() < 1e-4
    assert waveform[round(0.1 * RATE) : round(0.11 * RATE)].max() > 0.01
    # ends at 100, 400, 600, 750, 1100 ms and the last frame, 93.75 frames a second
    assert u.durations == [9, 29, 18, 14, 33, u.num_frames - 103]
    assert sum(u.durations) == u.num_frames


def test_frames_of_are_differences_of_rounded_ends() -> None:
    # ends 1.5, 3.0, 4.5 frames round to even: 2, 3, 4; the last takes what is left
    assert frames_of([16.0, 16.0, 16.0], 6, MEL) == [2, 1, 3]
    assert frames_of([16.0, 0.0, 160.0], 5, MEL) == [2, 0, 3]  # never beyond the last frame
    many = frames_of([13.0] * 500, round(6500 * 0.09375), MEL)
    assert sum(many) == round(6500 * 0.09375)
    assert set(many) == {1, 2}


def test_variants_are_speakers_of_their_own_who_speak_faster_or_slower(
    make: Make, tmp_path: Path
) -> None:
    manifest = make(known(), known(pitch=150.0), {"speaker": "no durations"})
    counts = prepare([manifest], tmp_path / "out", variants=2, seed=3)
    assert counts == {"written": 3 + 4}
    found = read_utterances(tmp_path / "out")
    assert len({u.id for u in found}) == 7
    first, *variants = found[:3]
    assert {u.speaker for u in found[1:3]} == {u.speaker for u in found[4:6]}  # fixed a speaker
    assert found[6].speaker == "no durations"
    again = tmp_path / "again"
    prepare([manifest], again, variants=2, seed=3)
    assert read_utterances(again) == found
    for variant in variants:
        factor = float(variant.speaker.removeprefix("annx"))
        assert 0.87 <= factor <= 1.15
        assert variant.num_samples == pytest.approx(first.num_samples / factor, abs=30)
        assert variant.source_sample_rate == pytest.approx(RATE * factor, rel=1e-3)
        assert variant.durations is not None
        assert first.durations is not None
        assert sum(variant.durations) == variant.num_frames
        for a, b in zip(variant.durations[:-1], first.durations[:-1], strict=True):
            assert abs(a - b / factor) <= 1.6  # both ends are rounded, in each of the two
        assert pitch_of(tmp_path / "out", variant) == pytest.approx(120 * factor, rel=0.01)


def pitch_of(folder: Path, u: Utterance) -> float:
    """Hz of the strongest harmonic below 200 Hz."""
    waveform = waveform_of(folder, u).numpy()
    spectrum = np.abs(np.fft.rfft(waveform, 1 << 18))
    return float(spectrum[: round(200 / RATE * (1 << 18))].argmax() * RATE / (1 << 18))


def test_a_variant_of_a_loud_clip_does_not_wrap_around(make: Make, tmp_path: Path) -> None:
    """The edges of a square pulse overshoot when resampled; in int16, 1.05 would become -0.95."""
    manifest = make(known(pad_ms=[0.0, 0.0]))
    samples, _ = soundfile.read(manifest.parent / "0.wav")
    samples *= 0.03 / samples.std()
    samples[12_000:12_024] = 1.0  # 1 ms: quiet speech around it leaves the peak where it is
    soundfile.write(manifest.parent / "0.wav", samples, RATE, subtype="FLOAT")
    prepare([manifest], tmp_path / "out", variants=3)
    original, *variants = read_utterances(tmp_path / "out")
    assert waveform_of(tmp_path / "out", original).max() == 1.0
    for u in variants:
        waveform = waveform_of(tmp_path / "out", u)
        assert waveform.max() > 0.9
        assert waveform.min() > -0.5


def test_speakers_are_held_out_whole_and_few(make: Make, tmp_path: Path) -> None:
    names = [f"speaker {i}" for i in range(4000)]
    held = [n for n in names if is_held_out(n)]
    assert len(held) / len(names) == pytest.approx(0.03, abs=0.008)
    trained = next(n for n in names if not is_held_out(n))
    manifest = make(*(known(speaker=s) for s in (held[0], trained)))
    prepare([manifest], tmp_path / "out", variants=2)
    splits = {u.speaker.split("x")[0]: set() for u in read_utterances(tmp_path / "out")}
    for u in read_utterances(tmp_path / "out"):
        splits[u.speaker.split("x")[0]].add(u.split)
    assert splits == {held[0]: {"held_out"}, trained: {"train"}}


@pytest.mark.parametrize(
    "broken",
    [
        {"audio": "missing.wav"},
        {"audio": "manifest.jsonl"},  # not audio
        {"seconds": 0.1},  # too short
        known(phonemes="eɪd"),  # four durations for three phonemes
        known(phonemes=None),
        known(phonemes="eɪ東京"),  # characters without a symbol
        {"phonemes": "eɪdə", "durations_ms": [300.0, 200.0, 150.0, 350.0]},  # no pad_ms
    ],
)
def test_what_cannot_be_used_is_counted_and_the_rest_is_written(
    make: Make, tmp_path: Path, broken: dict[str, Any]
) -> None:
    counts = prepare([make(known(), broken, known(pitch=200.0))], tmp_path / "out")
    assert counts == {"written": 2, "unreadable": 1}
    assert [u.id for u in read_utterances(tmp_path / "out")] == ["u0", "u2"]
    whole = read_utterances(tmp_path / "out")[1]
    assert len(open_mels(tmp_path / "out", MEL)) == whole.start_frame + whole.num_frames


def left_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_nothing_is_left_when_nothing_can_be_read(make: Make, tmp_path: Path) -> None:
    manifest = make({"audio": "missing.wav"})
    with pytest.raises(InputError, match="None of the utterances"):
        prepare([manifest], tmp_path / "out")
    assert left_in(tmp_path) == ["speech"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "line 2 is not JSON"),
        ("[1, 2]", "line 2 is not a JSON object"),
        ('{"audio": "0.wav", "text": "x"}', "line 2 lacks 'speaker'"),
    ],
)
def test_nothing_is_left_of_a_manifest_with_a_bad_line(
    make: Make, tmp_path: Path, line: str, said: str
) -> None:
    manifest = make(known())
    manifest.write_text(manifest.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=said):
        prepare([manifest], tmp_path / "out")
    assert left_in(tmp_path) == ["speech"]


def test_a_manifest_that_is_missing_or_not_text_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        prepare([tmp_path / "manifest.jsonl"], tmp_path / "out")
    (tmp_path / "manifest.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        prepare([tmp_path / "manifest.jsonl"], tmp_path / "out")
    assert left_in(tmp_path) == ["manifest.jsonl"]


def test_a_text_may_hold_unusual_line_separators(make: Make, tmp_path: Path) -> None:
    prepare([make(known(text="One.\u2028Two.\x85"))], tmp_path / "out")
    assert [u.text for u in read_utterances(tmp_path / "out")] == ["One.\u2028Two.\x85"]


def test_an_existing_folder_is_refused_and_stays(make: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(OptionError, match="exists already"):
        prepare([make(known())], tmp_path / "out")
    assert left_in(tmp_path / "out") == ["mine"]


def test_the_list_can_be_replaced_and_a_wrong_folder_is_named(make: Make, tmp_path: Path) -> None:
    prepare([make(known(), known())], tmp_path / "out")
    found = read_utterances(tmp_path / "out")
    write_utterances(tmp_path / "out", found[::-1])
    assert read_utterances(tmp_path / "out") == found[::-1]
    assert left_in(tmp_path / "out") == ["audio.i16", "mels.f16", "utterances.jsonl"]
    with pytest.raises(InputError, match=r"no utterances\.jsonl"):
        read_utterances(tmp_path / "speech")


def test_texts_with_unknown_words_are_dropped_and_counted(make: Make, tmp_path: Path) -> None:
    manifest = make({"text": "His <unk> left."}, {"text": "Mine <UNK>"}, {"text_kind": "none"}, {})
    counts = prepare([manifest], tmp_path / "out")
    assert counts == {
        "written": 4,
        "written without durations to come: unknown words": 2,
        "written without durations to come: no text": 1,
    }
    reasons = [u.dropped for u in read_utterances(tmp_path / "out")]
    assert reasons == ["unknown words", "unknown words", "no text", None]


@pytest.mark.parametrize("held", [False, True])
def test_one_voice_is_split_by_utterance(make: Make, tmp_path: Path, held: bool) -> None:
    name = next(n for n in (f"voice {i}" for i in range(200)) if is_held_out(n) is held)
    manifest = make(*({"speaker": name, "seconds": 0.3} for _ in range(20)))
    prepare([manifest], tmp_path / "out")
    assert [u.split for u in read_utterances(tmp_path / "out")] == ["train"] * 18 + ["held_out"] * 2
    few = read_utterances(tmp_path / "out")[:19]
    assert split_by_utterance(few) == few

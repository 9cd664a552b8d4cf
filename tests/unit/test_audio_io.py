import io
import logging
import os
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from stepflow_tts.audio.effects import active_level_db
from stepflow_tts.audio.io import load_audio
from stepflow_tts.audio.reference import load_reference
from stepflow_tts.errors import AudioError

RATE = 24_000


def tone(seconds=2.0, rate=RATE, amplitude=0.3, frequency=220.0):
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def wav(samples, rate=RATE, subtype="FLOAT", format="WAV"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(tone()))
    return tmp_path / "a.wav"


class Pipe(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self._data.readinto(buffer)


def test_paths_bytes_and_streams_give_the_same(path):
    with open(path, "rb") as file:
        sources = [path, str(path), path.read_bytes(), Pipe(path.read_bytes()), file]
        for source in sources:
            waveform, rate = load_audio(source)
            assert rate == RATE
            assert waveform.dtype == torch.float32
            assert torch.equal(waveform, torch.from_numpy(tone()))


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("FLAC", "PCM_24"), ("AIFF", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None)],
)
def test_other_formats_are_read(format, subtype):
    waveform, rate = load_audio(wav(tone(), format=format, subtype=subtype))
    assert (waveform.numel(), rate) == (2 * RATE, RATE)
    assert np.abs(waveform.numpy() - tone())[2_400:-2_400].max() < 0.02


def test_channels_are_averaged_over_blocks():
    left, right = tone(12.0), tone(12.0, frequency=330.0)
    waveform, _ = load_audio(wav(np.stack([left, right], axis=1)))
    assert np.allclose(waveform.numpy(), (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [("int8", 128, 0), ("uint8", 128, 128), ("int16", 2**15, 0), ("int32", 2**31, 0)],
)
def test_integers_are_scaled_by_their_range(dtype, scale, offset):
    values = np.round(tone(0.5).astype(np.float64) * (scale - 1) + offset).astype(dtype)
    expected = (values.astype(np.float64) - offset) / scale
    for source in (values, torch.from_numpy(values)):
        waveform, rate = load_audio(source, 16_000)
        assert rate == 16_000
        assert np.allclose(waveform.numpy(), expected, atol=1e-7)


def test_the_smaller_axis_holds_the_channels():
    channels = np.stack([tone(12.0), tone(12.0, frequency=330.0), tone(12.0, frequency=50.0)])
    for array in (channels, channels.T, torch.from_numpy(channels).bfloat16().double()):
        waveform, _ = load_audio(array, RATE)
        assert waveform.shape == (12 * RATE,)
        assert np.allclose(waveform.numpy(), channels.mean(axis=0), atol=2e-3)


def test_an_array_is_copied():
    samples = tone()
    waveform, _ = load_audio(samples, RATE)
    waveform.zero_()
    assert np.array_equal(samples, tone())


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_every_float_type_is_read(dtype):
    waveform, _ = load_audio(tone().astype(dtype), RATE)
    assert np.allclose(waveform.numpy(), tone(), atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_sample_that_is_no_sound_is_named_with_its_time(value):
    samples = tone(8.0)
    samples[6 * RATE] = value
    for source, rate in ((samples, RATE), (wav(samples), None)):
        with pytest.raises(AudioError, match=r"the sample .* at 6\.00 s"):
            load_audio(source, rate)
    with pytest.raises(AudioError, match="inf"):
        load_audio(np.full(100, 1e300), RATE)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 4)), r"\(2, 3, 4\)"),
        (np.array(0.5), r"not \(\)"),
        (np.zeros(100, dtype=np.int64), "int64"),
        (np.zeros(100, dtype=bool), "bool"),
        (np.zeros(100, dtype=complex), "complex128"),
        (torch.zeros(100, dtype=torch.int64), "int64"),
        (np.zeros(0, dtype=np.float32), "no samples"),
        (np.zeros((0, 2), dtype=np.float32), "no samples"),
    ],
)
def test_arrays_that_are_not_audio_are_refused(array, message):
    with pytest.raises(AudioError, match=message):
        load_audio(array, RATE)


@pytest.mark.parametrize("rate", [0, -24_000, 10, 10**9, 24_000.5, float("nan"), True, "24000"])
def test_sample_rates_that_cannot_be_true_are_refused(rate):
    with pytest.raises(AudioError, match=r"4000 to 768000"):
        load_audio(tone(), rate)


def test_an_array_needs_a_rate_and_a_file_brings_its_own(path):
    with pytest.raises(AudioError, match="sample_rate="):
        load_audio(tone())
    with pytest.raises(AudioError, match="24000 Hz, but sample_rate=16000"):
        load_audio(path, 16_000)
    assert load_audio(path, RATE)[1] == RATE


def test_a_file_with_an_absurd_rate_is_refused():
    with pytest.raises(AudioError, match="sample rate is 100"):
        load_audio(wav(tone(), rate=100))


def test_what_is_not_an_audio_file_is_refused(tmp_path):
    empty = tmp_path / "empty.wav"
    empty.touch()
    text = tmp_path / "text.wav"
    text.write_text("This is a letter, not a recording. " * 20)
    raw = tmp_path / "a.raw"
    raw.write_bytes(tone().tobytes())
    cases = {
        tmp_path / "missing.wav": "no audio file",
        "https://example.com/a.wav": "download it",
        "a\0b.wav": "no audio file",
        "a" * 5_000: "Cannot read",
        tmp_path: "is a folder",
        empty: "empty: 0 bytes",
        text: "not audio that can be read",
        raw: "not audio that can be read",
        b"": "empty",
        b"RIFF": "not audio",
        b"\xff": "not audio",
        wav(tone())[:30]: "not audio",
        wav(np.zeros(0, dtype=np.float32)): "no samples",
    }
    for source, message in cases.items():
        with pytest.raises(AudioError, match=message):
            load_audio(source)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="no audio file"):
        load_audio(tmp_path / "a.wav")


def test_streams_that_cannot_be_read_say_what_to_do():
    rewound = io.BytesIO(wav(tone()))
    rewound.read()
    with pytest.raises(AudioError, match=r"seek\(0\)"):
        load_audio(rewound)
    with pytest.raises(AudioError, match="binary mode"):
        load_audio(io.StringIO("text"))
    with pytest.raises(AudioError, match="cannot come from list"):
        load_audio([0.0, 0.1], RATE)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0", "m4a"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81", "webm"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc", "aac"),
        (b"#!AMR\n<\x91\x17", "amr"),
    ],
)
def test_formats_that_need_converting_say_with_what(tmp_path, monkeypatch, head, kind):
    monkeypatch.setitem(sys.modules, "av", None)  # as if the extra [av] were not installed
    with pytest.raises(AudioError, match=f"ffmpeg -i in.{kind} in.wav"):
        load_audio(head + bytes(500))
    (tmp_path / f"me.{kind}").write_bytes(head + bytes(500))
    with pytest.raises(AudioError, match=rf"is {kind}.*ffmpeg -i .*/me\.{kind} me\.wav"):
        load_audio(tmp_path / f"me.{kind}")


def padded(speech, rate=RATE, seconds=1.0):
    silence = np.zeros(round(seconds * rate), dtype=np.float32)
    return np.concatenate([silence, speech, silence])


def test_a_reference_is_trimmed_levelled_and_resampled():
    waveform = load_reference(wav(padded(tone(3.0, 16_000), 16_000), 16_000))
    assert waveform.shape == (round(3.2 * RATE),)  # a tenth of a second of silence on either side
    assert active_level_db(waveform, RATE) == pytest.approx(-26.0, abs=0.1)
    assert load_reference(tone(3.0), RATE, target_rate=16_000).shape == (48_000,)


@pytest.mark.parametrize("rate", [8_000, 192_000])
def test_low_and_high_rates_give_the_same_tone(rate):
    waveform = load_reference(wav(tone(2.0, rate), rate))
    expected = load_reference(tone(2.0), RATE)
    assert waveform.shape == expected.shape
    assert (waveform - expected)[2_400:-2_400].abs().max() < 1e-3


def test_six_channels_of_24_bits_are_mixed():
    channels = np.zeros((2 * RATE, 6), dtype=np.float32)
    channels[:, 2] = tone()
    assert torch.allclose(
        load_reference(wav(channels, subtype="PCM_24")), load_reference(tone(), RATE), atol=1e-4
    )


def test_an_offset_is_not_sound():
    with pytest.raises(AudioError, match="silent"):
        load_reference(np.full(3 * RATE, 0.5, dtype=np.float32), RATE)
    with_offset = load_reference(padded(tone()) + np.float32(0.2), RATE)
    assert torch.allclose(with_offset, load_reference(padded(tone()), RATE), atol=1e-3)


@pytest.mark.parametrize("leading_seconds", [0.0, 3.0, 47.0])
def test_of_a_long_reference_the_first_seconds_of_speech_are_used(leading_seconds, caplog):
    speech = np.concatenate([tone(6.0), tone(10.0, frequency=330.0)])
    source = np.concatenate([padded(speech, seconds=leading_seconds), tone(60.0, frequency=50.0)])
    with caplog.at_level(logging.WARNING):
        waveform = load_reference(source, RATE)
    assert waveform.shape == (round(7.9 * RATE),)
    lead = min(leading_seconds, 0.1)
    start = round((6.0 + lead) * RATE)
    part = waveform[start : start + RATE // 10].double().numpy()
    spectrum = np.abs(np.fft.rfft(part))
    assert (
        spectrum.argmax() == 33
    )  # 330 Hz in bins of 10 Hz: the second tone starts where it should
    assert [record.getMessage() for record in caplog.records] == [
        "The array: only the first 7.9 s of speech are used."
    ]


def test_a_short_reference_is_used_without_a_word(caplog):
    with caplog.at_level(logging.DEBUG, logger="stepflow_tts"):
        assert load_reference(padded(tone(7.5)), RATE).shape == (round(7.7 * RATE),)
    assert caplog.records == []


def test_only_what_is_used_of_ten_minutes_is_decoded(tmp_path):
    samples = np.tile(tone(60.0, 8_000), 10)
    samples[60 * 8_000] = np.nan  # met only by what reads that far
    (tmp_path / "long.wav").write_bytes(wav(samples, 8_000))
    assert load_reference(tmp_path / "long.wav").numel() == round(7.9 * RATE)
    with pytest.raises(AudioError, match=r"at 60\.00 s"):
        load_audio(tmp_path / "long.wav")


def test_leading_silence_is_not_kept_in_memory(tmp_path):
    samples = np.concatenate([np.zeros(600 * 8_000, np.float32), tone(9.0, 8_000)])  # 19 MB
    (tmp_path / "late.flac").write_bytes(wav(samples, 8_000, "PCM_16", "FLAC"))
    tracemalloc.start()
    waveform = load_reference(tmp_path / "late.flac")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert waveform.numel() == round(7.9 * RATE)
    assert peak < 4e6


def test_speech_after_a_pause_is_not_lost():
    """A first block with speech and a silent second one."""
    speech = np.concatenate([tone(2.0), np.zeros(3 * RATE + 5 * RATE, np.float32), tone(1.0)])
    waveform = load_reference(speech, RATE)
    assert waveform[:RATE].abs().max() > 0.05
    assert waveform.numel() == round(7.9 * RATE)


@pytest.mark.parametrize("amplitude", [0.0, 8e-4])
def test_silence_is_refused(amplitude):
    with pytest.raises(AudioError, match=r"silent.*-60 is needed"):
        load_reference(wav(tone(3.0, amplitude=amplitude)))


def test_a_quiet_recording_is_used():
    assert load_reference(tone(3.0, amplitude=3e-3), RATE).abs().max() > 0.05


@pytest.mark.parametrize("seconds", [0.01, 0.5, 0.75])
def test_less_than_a_second_of_speech_is_refused(seconds):
    with pytest.raises(AudioError, match=r"s of speech; at least 1 s"):
        load_reference(padded(tone(seconds)), RATE)
    assert load_reference(tone(1.0), RATE).numel() == RATE


def test_reading_keeps_no_file_open(path):
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        load_reference(path)
        with pytest.raises(AudioError):
            load_audio(path, 8_000)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before

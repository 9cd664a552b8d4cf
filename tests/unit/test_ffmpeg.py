"""m4a, mp4, webm and AAC, read and written through PyAV."""

import io
import sys

import av
import numpy as np
import pytest

from stepflow_tts.audio.ffmpeg import AAC_RATES
from stepflow_tts.audio.io import FORMATS, check_format, encode_audio, load_audio
from stepflow_tts.audio.reference import load_reference
from stepflow_tts.errors import AudioError, MissingDependencyError, OptionError
from stepflow_tts.speech import Speech

RATE = 24_000
FRAME = 1_024  # samples that AAC codes together


def noise(seconds=1.0, rate=RATE, channels=1):
    """Low-passed, so that coders keep it; no two parts are alike, so that a shift is seen."""
    samples = np.random.default_rng(0).standard_normal((channels, round(seconds * rate) + 7))
    smooth = sum(samples[:, i : i + round(seconds * rate)] for i in range(8)) / 8
    return (0.2 * smooth).astype(np.float32)


def container(samples, format, codec, rate=RATE, layout="mono", sample_format="fltp"):
    """The bytes of a file as a phone or a browser would make it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as file:
        track = file.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples, format=sample_format, layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
    return buffer.getvalue()


def similarity(a, b):
    return float(np.dot(a, b) / np.sqrt(np.dot(a, a) * np.dot(b, b)))


@pytest.mark.parametrize(
    ("format", "codec", "extension"),
    [("ipod", "aac", "m4a"), ("mp4", "aac", "mp4"), ("webm", "libopus", "webm")],
)
def test_containers_are_read_to_the_sample(tmp_path, format, codec, extension):
    rate = 48_000
    samples = noise(6.3, rate)
    data = container(samples, format, codec, rate)
    path = tmp_path / f"a.{extension}"
    path.write_bytes(data)
    for source in (path, data, io.BytesIO(data)):
        waveform, found = load_audio(source)
        assert found == rate
        assert waveform.numel() == pytest.approx(samples.size, abs=rate // 1_000)
        length = min(waveform.numel(), samples.size)
        assert similarity(waveform.numpy()[:length], samples[0, :length]) > 0.9


def test_bare_aac_is_read():
    samples = noise(6.3)
    waveform, rate = load_audio(container(samples, "adts", "aac"))
    assert rate == RATE
    assert similarity(waveform.numpy()[FRAME : FRAME + samples.size], samples[0]) > 0.9


def test_integers_are_scaled_and_channels_averaged():
    left, right = (1e4 * noise(1.0, channels=2)).astype(np.int16)
    samples = np.stack([left, right])
    data = container(samples, "mov", "alac", layout="stereo", sample_format="s16p")
    expected = (left.astype(np.float64) + right) / 2 / 2**15
    data = data.replace(b"ftypqt  ", b"ftypM4A ")
    assert np.allclose(load_audio(data)[0].numpy(), expected, atol=1e-7)


def test_the_rate_of_the_header_is_checked_against_the_caller_s():
    with pytest.raises(AudioError, match="24000 Hz, but sample_rate=16000"):
        load_audio(container(noise(), "ipod", "aac"), 16_000)


def test_a_phone_s_recording_becomes_a_reference():
    samples = noise(9.0, 48_000)
    assert load_reference(container(samples, "ipod", "aac", 48_000)).numel() == round(7.9 * RATE)


def test_damaged_files_are_errors_of_ours():
    m4a = container(noise(), "ipod", "aac")
    middle = m4a.index(b"mdat") + 4
    scrambled = m4a[:middle] + bytes(5_000) + m4a[middle + 5_000 :]
    webm = container(noise(1.0, 48_000), "webm", "libopus", 48_000)
    for data in (m4a[: len(m4a) // 2], scrambled, webm[:30], b"\xff\xf1\x50\x80" + bytes(600)):
        with pytest.raises(AudioError, match=r"damaged|no samples"):
            load_audio(data)


def test_a_film_without_sound_is_refused():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        track = file.add_stream("mpeg4", rate=24)
        track.width, track.height, track.pix_fmt = 16, 16, "yuv420p"
        file.mux(track.encode(av.VideoFrame(16, 16, "yuv420p")))
        file.mux(track.encode(None))
    with pytest.raises(AudioError, match="without an audio track"):
        load_audio(buffer.getvalue())


@pytest.mark.parametrize("num_samples", [1_000, FRAME, 2 * RATE + 17])
def test_an_m4a_has_its_exact_length_and_bare_aac_a_bounded_one(num_samples):
    samples = noise(3.0)[0, :num_samples]
    m4a = encode_audio(samples, RATE, "m4a")
    with av.open(io.BytesIO(m4a)) as file:
        track = file.streams.audio[0]
        assert track.duration * track.time_base * RATE == num_samples
    decoded = load_audio(m4a)[0].numpy()
    assert decoded.size == num_samples
    aac = load_audio(encode_audio(samples, RATE, "aac"))[0].numpy()
    assert FRAME + num_samples <= aac.size < 2 * FRAME + num_samples
    if num_samples > FRAME:  # the first frame of noise is hard to code
        assert similarity(decoded, samples) > 0.9
        assert similarity(aac[FRAME : FRAME + num_samples], samples) > 0.9


@pytest.mark.parametrize("format", FORMATS)
def test_a_second_decoder_gives_the_full_length_too(format):
    """FFmpeg, whatever wrote the file; what it may give beyond is in docs/formats.md."""
    samples = noise(2.1)[0]
    data = encode_audio(samples, RATE, format)
    with av.open(io.BytesIO(data), format="aac" if format == "aac" else None) as file:
        track = file.streams.audio[0]
        num_samples = sum(frame.samples for frame in file.decode(track))
    beyond = num_samples * RATE / track.sample_rate - samples.size
    assert 0 <= beyond <= {"m4a": FRAME - 1, "aac": 2 * FRAME - 1}.get(format, 0)


def test_speech_is_saved_as_m4a(tmp_path):
    path = Speech(noise()[0], RATE).save(tmp_path / "a.M4A")
    assert path.read_bytes()[4:12] == b"ftypM4A "
    assert load_audio(path)[0].numel() == RATE


def test_every_rate_of_aac_is_written_and_others_are_refused():
    for rate in AAC_RATES:
        assert load_audio(encode_audio(noise(0.2, rate)[0], rate, "m4a"))[1] == rate
    with pytest.raises(OptionError, match=r"m4a at 44099 Hz.*44100"):
        encode_audio(noise()[0], 44_099, "m4a")


def test_samples_beyond_one_are_clipped():
    decoded = load_audio(encode_audio(20 * noise()[0], RATE, "m4a"))[0].numpy()
    assert similarity(decoded, np.clip(20 * noise()[0], -1, 1)) > 0.9


def test_formats_are_refused_before_the_work():
    for format in ("wav", "m4a", "aac"):
        check_format(format)
    with pytest.raises(OptionError, match=r"'wma'.*m4a, aac"):
        check_format("wma")


def test_without_pyav_both_ways_out_are_told(monkeypatch):
    m4a = container(noise(), "ipod", "aac")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioError, match=r'stepflow-tts\[av\]".*ffmpeg -i in\.m4a in\.wav'):
        load_audio(m4a)
    for format in ("m4a", "aac"):
        with pytest.raises(MissingDependencyError, match=r'pip install "stepflow-tts\[av\]"'):
            Speech(noise()[0], RATE).to_bytes(format)
        with pytest.raises(MissingDependencyError):
            check_format(format)

"""A voice out of several clips, and voices that are remembered by what was encoded."""

import io
import logging
import os
import threading

import numpy as np
import pytest
import soundfile
import torch

from stepflow_tts.audio.effects import active_level_db
from stepflow_tts.audio.reference import fair_shares, load_reference
from stepflow_tts.audio.sources import MAX_HASHED_BYTES
from stepflow_tts.errors import AudioError, OptionError
from stepflow_tts.voice import Voice, VoiceCache

RATE = 24_000
FADE = round(0.02 * RATE)


def tone(seconds, frequency=220.0, amplitude=0.3, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def padded(speech):
    silence = np.zeros(RATE // 2, dtype=np.float32)
    return np.concatenate([silence, speech, silence])


def wav(samples, rate=RATE):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def frequency_at(waveform, seconds):
    """In Hz, of a tenth of a second."""
    part = waveform[round(seconds * RATE) :][: RATE // 10].double().numpy()
    return 10 * int(np.abs(np.fft.rfft(part)).argmax())


@pytest.mark.parametrize(
    ("lengths", "available", "expected"),
    [
        ([5], 8, [5]),
        ([9], 8, [8]),
        ([2, 2, 2], 8, [2, 2, 2]),
        ([30, 30, 30], 9, [3, 3, 3]),
        ([30, 1, 30], 9, [4, 1, 4]),
        ([3, 1, 30, 4], 12, [3, 1, 4, 4]),
        ([30, 2, 3, 30], 13, [4, 2, 3, 4]),
    ],
)
def test_clips_share_the_time_and_short_ones_leave_theirs(lengths, available, expected):
    assert fair_shares(lengths, available) == expected


def test_clips_are_trimmed_levelled_and_joined_in_their_order():
    clips = [tone(1.0, 200.0, 0.5), tone(2.0, 400.0, 0.01), tone(1.5, 600.0, 0.1)]
    joined = load_reference([padded(clip) for clip in clips], RATE)
    assert joined.numel() == round(5.1 * RATE) - 2 * FADE  # a tenth of silence on either side
    assert [frequency_at(joined, seconds) for seconds in (0.5, 2.0, 4.2)] == [200, 400, 600]
    levels = [active_level_db(joined[a * RATE // 10 : b * RATE // 10], RATE) for a, b in
              ((2, 10), (14, 30), (37, 48))]  # fmt: skip
    assert levels == pytest.approx([-26.0] * 3, abs=0.2)


def test_of_long_clips_equal_parts_are_used(caplog):
    clips = [tone(20.0, 200.0), tone(1.0, 400.0), tone(20.0, 600.0)]
    with caplog.at_level(logging.WARNING):
        joined = load_reference(tuple(clips), RATE)
    assert joined.numel() == round(7.9 * RATE) - 2 * FADE
    seconds = (0.1, 3.2, 3.6, 4.2, 4.5, 7.7)  # 3.45 s, 1 s, 3.45 s
    assert [frequency_at(joined, at) for at in seconds] == [200, 200, 400, 400, 600, 600]
    assert [record.getMessage() for record in caplog.records] == [
        "The clips: only the first 7.9 s of speech are used."
    ]


def test_one_clip_in_a_list_is_that_clip():
    assert torch.equal(load_reference([tone(3.0)], RATE), load_reference(tone(3.0), RATE))


def test_a_joint_does_not_click():
    joined = load_reference([tone(2.0, 100.0), tone(2.0, 100.0)[37:]], RATE)
    steps = joined.diff().abs()
    assert steps[RATE : 3 * RATE].max() < 1.5 * steps[:RATE].max()


def test_clips_of_every_kind_and_rate_are_mixed(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav(tone(1.0, 200.0, rate=16_000), 16_000))
    clips = [
        tmp_path / "a.wav",
        wav(tone(1.0, 400.0, rate=8_000), 8_000),
        torch.from_numpy(tone(1.0, 600.0)),
    ]
    joined = load_reference(clips, RATE)  # the rate is the tensor's
    assert joined.numel() == 3 * RATE - 2 * FADE
    assert [frequency_at(joined, seconds) for seconds in (0.5, 1.5, 2.5)] == [200, 400, 600]


def test_short_clips_count_together():
    assert load_reference([tone(0.4)] * 3, RATE).numel() == round(1.2 * RATE) - 2 * FADE
    with pytest.raises(AudioError, match=r"The clips: 0\.80 s of speech; at least 1 s"):
        load_reference([tone(0.4)] * 2, RATE)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "0 clips were passed; 1 to 8"),
        ([tone(1.0)] * 9, "9 clips were passed; 1 to 8"),
        (list(tone(0.1)), r"2400 clips.*numpy\.asarray"),
        ([tone(2.0), 0 * tone(2.0)], "Clip 2 of 2: The array is silent"),
        (["missing.wav", tone(2.0)], "Clip 1 of 2: There is no audio file missing.wav"),
        ((tone(2.0), RATE), "Clip 2 of 2: Audio cannot come from int"),
    ],
)
def test_clips_that_cannot_be_used_are_named(clips, message):
    with pytest.raises(AudioError, match=message):
        Voice.from_audio(clips, RATE)
    with pytest.raises(AudioError, match=message):
        VoiceCache().from_audio(clips, RATE)


def test_the_voice_of_several_clips_fits_its_file(tmp_path):
    rng = np.random.default_rng(0)
    clips = [0.1 * rng.standard_normal(5 * RATE).astype(np.float32) for _ in range(8)]
    voice = Voice.from_audio(clips, RATE, name="Eight")
    assert voice.name == "Eight"
    assert voice.save(tmp_path / "a.safetensors").stat().st_size < 150_000


def test_the_same_content_is_encoded_once_wherever_it_comes_from(tmp_path):
    cache = VoiceCache()
    data = wav(tone(2.0))
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(data)
    first = cache.from_audio(data)
    assert first.digest == Voice.from_audio(data).digest
    for source in (bytes(data), io.BytesIO(data), tmp_path / "a.wav", str(tmp_path / "b.wav")):
        assert cache.from_audio(source) is first
    array = tone(2.0)
    second = cache.from_audio(array, RATE)
    assert cache.from_audio(array.copy(), RATE) is second
    assert cache.from_audio(torch.from_numpy(array), RATE) is second
    third = cache.from_audio([data, array], RATE)
    assert cache.from_audio((tmp_path / "a.wav", array), RATE) is third
    assert len(cache) == 3


def test_what_differs_is_encoded_anew(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(wav(tone(2.0)))
    times = path.stat()
    cache = VoiceCache()
    array = tone(2.0)
    both = np.stack([array, 0 * array])
    calls = [
        lambda: cache.from_audio(path),
        lambda: cache.from_audio(path, name="Other"),
        lambda: cache.from_audio(path, language="en-gb"),
        lambda: cache.from_audio(path, description="Other"),
        lambda: cache.from_audio([path]),
        lambda: cache.from_audio([path, path]),
        lambda: cache.from_audio(array, RATE),
        lambda: cache.from_audio(array, 16_000),
        lambda: cache.from_audio(array.astype(np.float64), RATE),
        lambda: cache.from_audio(both, RATE),
        lambda: cache.from_audio(both.reshape(-1), RATE),
    ]
    voices = [call() for call in calls]
    assert len({id(voice) for voice in voices}) == len(cache) == len(calls)
    path.write_bytes(wav(tone(2.0, 330.0)))  # as long, at the same time, of the same name
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert cache.from_audio(path).digest != voices[0].digest
    array[:] = tone(2.0, 330.0)
    assert cache.from_audio(array, RATE).digest != voices[6].digest


def test_the_cache_is_bounded_and_forgets_the_one_that_was_used_least_lately():
    cache = VoiceCache(max_voices=2)
    clips = [wav(tone(1.0, frequency)) for frequency in (200.0, 300.0, 400.0)]
    first, second = (cache.from_audio(clip) for clip in clips[:2])
    assert cache.from_audio(clips[0]) is first
    cache.from_audio(clips[2])
    assert len(cache) == 2
    assert cache.from_audio(clips[0]) is first
    assert cache.from_audio(clips[1]) is not second


def test_refused_audio_is_not_remembered_and_its_message_keeps_the_path(tmp_path):
    path = tmp_path / "a.wav"
    cache = VoiceCache()
    path.write_bytes(wav(0 * tone(2.0)))
    with pytest.raises(AudioError, match=r"a\.wav is silent"):
        cache.from_audio(path)
    path.write_bytes(b"")
    with pytest.raises(AudioError, match=r"a\.wav is empty: 0 bytes to read\.$"):
        cache.from_audio(path)
    rewound = io.BytesIO(wav(tone(2.0)))
    rewound.read()
    with pytest.raises(AudioError, match=r"seek\(0\)"):
        cache.from_audio(rewound)
    with pytest.raises(AudioError, match="no audio file"):
        cache.from_audio("a\0b.wav")
    with pytest.raises(AudioError, match="Audio cannot come from int"):
        cache.from_audio(5)
    with pytest.raises(OptionError, match="name"):
        cache.from_audio(wav(tone(2.0)), name="")
    path.write_bytes(wav(tone(2.0)))
    assert cache.from_audio(path).digest == Voice.from_audio(path).digest
    assert len(cache) == 1


def test_huge_recordings_are_read_in_part_and_not_remembered(tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(wav(tone(2.0)))
    os.truncate(path, MAX_HASHED_BYTES + 1)  # a hole: nothing is written
    cache = VoiceCache()
    assert cache.from_audio(path).digest == Voice.from_audio(path).digest
    assert len(cache) == 0


def test_threads_share_a_cache():
    cache = VoiceCache(max_voices=4)
    clips = [wav(tone(1.0, 100.0 * k)) for k in range(1, 7)]
    expected = [Voice.from_audio(clip).digest for clip in clips]
    wrong = []

    def work(offset):
        for k in range(12):
            index = (k + offset) % len(clips)
            if cache.from_audio(clips[index]).digest != expected[index]:
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) == 4

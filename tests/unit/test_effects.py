import math

import pytest
import torch

from stepflow_tts.audio.effects import (
    active_level_db,
    cross_fade,
    reduce_noise,
    resample,
    set_level,
    trim_silence,
)
from stepflow_tts.errors import OptionError

RATE = 24_000


def sine(seconds, frequency=220.0, level_db=-26.0, rate=RATE):
    """A tone whose RMS level is `level_db`."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    amplitude = math.sqrt(2) * 10 ** (level_db / 20)
    return (amplitude * torch.sin(2 * math.pi * frequency * time)).float()


def noise(seconds, level_db, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(round(seconds * RATE), generator=generator) * 10 ** (level_db / 20)


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 192_000])
def test_a_resampled_tone_is_the_tone_at_the_new_rate(rate):
    result = resample(sine(1.0, 1000.0, rate=rate), rate, RATE)
    expected = sine(1.0, 1000.0)
    assert result.shape == expected.shape
    middle = slice(2_400, -2_400)  # away from the ends, where the filter sees zeros
    assert (result - expected)[middle].abs().max() < 1e-4


def test_resampling_keeps_what_fits_and_drops_what_would_alias():
    kept = resample(sine(1.0, 7_500.0, level_db=-10.0, rate=16_000), 16_000, RATE)
    assert active_level_db(kept[2_400:-2_400], RATE) == pytest.approx(-10.0, abs=0.05)
    dropped = resample(sine(1.0, 13_000.0, level_db=-10.0, rate=48_000), 48_000, RATE)
    assert dropped[2_400:-2_400].square().mean().log10() * 10 < -70


def test_resampling_copes_with_rates_that_share_no_factor():
    result = resample(sine(1.0, 1000.0, rate=44_099), 44_099, RATE)
    assert abs(result.numel() - RATE) <= 1
    assert (result[: RATE // 4] - sine(0.25, 1000.0))[2_400:].abs().max() < 1e-3


def test_resampling_to_the_same_rate_changes_nothing():
    waveform = sine(0.1)
    assert torch.equal(resample(waveform, RATE, RATE), waveform)


@pytest.mark.parametrize(("source", "target"), [(0, 24_000), (24_000, 0), (-1, 8_000)])
def test_resampling_refuses_rates_that_are_not_positive(source, target):
    with pytest.raises(OptionError, match="above 0"):
        resample(sine(0.1), source, target)


@pytest.mark.parametrize("floor_db", [-math.inf, -80.0, -60.0])
def test_pauses_do_not_count_for_the_level(floor_db):
    pause = noise(3.0, floor_db) if floor_db > -math.inf else torch.zeros(3 * RATE)
    speech = torch.cat([pause, sine(1.0, level_db=-20.0), pause, sine(1.0, level_db=-20.0), pause])
    assert active_level_db(speech, RATE) == pytest.approx(-20.0, abs=0.05)


def test_the_level_of_quiet_and_loud_speech_is_their_mean_power():
    waveform = torch.cat([sine(1.0, level_db=-20.0), sine(1.0, level_db=-30.0)])
    assert active_level_db(waveform, RATE) == pytest.approx(
        10 * math.log10((10**-2.0 + 10**-3.0) / 2), abs=0.01
    )


@pytest.mark.parametrize("waveform", [torch.zeros(RATE), torch.zeros(0), sine(1.0, level_db=-75.0)])
def test_silence_has_no_level(waveform):
    assert active_level_db(waveform, RATE) == -math.inf
    assert torch.equal(set_level(waveform, RATE), waveform)
    assert torch.equal(trim_silence(waveform, RATE), waveform)


def test_a_waveform_shorter_than_a_frame_has_a_level():
    assert active_level_db(torch.full((7,), 0.1), RATE) == pytest.approx(-20.0, abs=1e-4)


@pytest.mark.parametrize("level_db", [-50.0, -26.0, -3.0])
def test_set_level_sets_the_level_and_leaves_its_argument(level_db):
    waveform = torch.cat([torch.zeros(RATE), sine(1.0, level_db=level_db)])
    before = waveform.clone()
    result = set_level(waveform, RATE)
    assert active_level_db(result, RATE) == pytest.approx(-26.0, abs=0.01)
    assert torch.equal(waveform, before)


def test_set_level_never_clips():
    waveform = sine(1.0, level_db=-50.0)
    waveform[RATE // 2] = 0.1  # a click, which would become 1.55
    result = set_level(waveform, RATE)
    assert result.abs().max() == 1.0
    assert torch.allclose(result, waveform / 0.1, atol=1e-6)


@pytest.mark.parametrize("floor_db", [-90.0, -60.0, -48.0])
def test_trimming_takes_outer_silence_and_keeps_pauses(floor_db):
    speech = torch.cat([sine(1.0), torch.zeros(RATE), sine(1.0)])
    waveform = torch.cat([torch.zeros(2 * RATE), speech, torch.zeros(3 * RATE)])
    waveform = waveform + noise(8.0, floor_db)
    result = trim_silence(waveform, RATE)
    assert torch.equal(result, waveform[round(1.9 * RATE) : round(5.1 * RATE)])


def test_trimming_keeps_a_weak_end_of_a_word_in_a_quiet_recording():
    fricative = noise(0.2, -60.0)  # 34 dB below the vowel
    waveform = torch.cat([torch.zeros(RATE), sine(1.0), fricative, torch.zeros(RATE)])
    assert trim_silence(waveform, RATE, keep_seconds=0.0).numel() == round(1.2 * RATE)


def test_trimming_does_not_reach_beyond_the_ends():
    waveform = sine(1.0)
    assert torch.equal(trim_silence(waveform, RATE, keep_seconds=0.5), waveform)


@pytest.mark.parametrize("kind", ["hiss", "hum"])
def test_noise_is_lowered_and_the_speech_stays(kind):
    steady = noise(4.0, -50.0) if kind == "hiss" else sine(4.0, 400.0, -40.0)
    speech = torch.cat([torch.zeros(RATE), sine(2.0, 1_000.0), torch.zeros(RATE)])
    before = speech + steady
    after = reduce_noise(before, RATE)
    assert after.shape == before.shape
    pause, tone = slice(RATE // 4, RATE * 3 // 4), slice(RATE * 3 // 2, RATE * 5 // 2)
    assert after[pause].square().mean() < before[pause].square().mean() / 30
    assert (after - speech)[tone].square().mean() < speech[tone].square().mean() / 50


def test_speech_without_noise_keeps_its_level_and_its_weak_ends():
    fricative = noise(0.2, -60.0)
    waveform = torch.cat([torch.zeros(RATE), sine(1.0), fricative, torch.zeros(RATE)])
    assert (reduce_noise(waveform, RATE) - waveform).abs().max() < 1e-4


@pytest.mark.parametrize("waveform", [torch.zeros(0), torch.ones(7), torch.zeros(RATE)])
def test_nothing_is_made_of_silence_or_of_a_click(waveform):
    assert torch.equal(reduce_noise(waveform, RATE), waveform)


def test_cross_fade_of_a_constant_is_that_constant():
    constant = torch.full((100,), 0.3)
    assert torch.equal(cross_fade(constant, constant, 37), torch.full((163,), 0.3))


def test_cross_fade_goes_from_the_first_to_the_second():
    result = cross_fade(torch.ones(10), torch.zeros(10), 4)
    weights = [0.5 + 0.5 * math.cos(math.pi * (i + 0.5) / 4) for i in range(4)]
    expected = torch.tensor([1.0] * 6 + weights + [0.0] * 6)
    assert torch.allclose(result, expected, atol=1e-6)


def test_cross_fade_of_nothing_joins():
    first, second = torch.rand(5), torch.rand(6)
    assert torch.equal(cross_fade(first, second, 0), torch.cat([first, second]))
    assert cross_fade(first, second, 5).numel() == 6


@pytest.mark.parametrize("num_samples", [-1, 6])
def test_cross_fade_refuses_an_overlap_that_does_not_fit(num_samples):
    with pytest.raises(OptionError, match="0 to 5"):
        cross_fade(torch.rand(5), torch.rand(9), num_samples)

"""Spectral losses against values that can be worked out by hand."""

import math

import pytest
import torch

from stepflow_tts.config import MelConfig
from stepflow_tts.training.spectral import (
    RESOLUTIONS,
    Resolution,
    anti_wrap,
    magnitude,
    mel_loss,
    multi_resolution_stft_loss,
    phase_losses,
    stft,
    stft_loss,
)

RESOLUTION = Resolution(256, 64, 256)


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_stft_of_a_sine_peaks_at_its_bin_and_has_a_frame_every_hop() -> None:
    time = torch.arange(6400) / 24000
    sine = torch.sin(2 * math.pi * 1875.0 * time)[None]  # bin 20 of 256
    spectrum = stft(sine, RESOLUTION)
    assert spectrum.shape == (1, 101, 129)
    middle = spectrum[0, 50].abs()
    assert middle.argmax() == 20
    assert middle[20].item() == pytest.approx(64.0, rel=1e-3)  # half the Hann window's sum


def test_magnitude_is_the_absolute_value_above_its_floor() -> None:
    values = torch.tensor([3 + 4j, 0j])
    assert magnitude(values, floor=1e-3).tolist() == pytest.approx([5.0, 1e-3])


def test_losses_of_equal_waveforms_are_zero() -> None:
    x = noise(2, 4800)
    assert multi_resolution_stft_loss(x, x).item() == 0.0
    assert mel_loss(x, x, MelConfig()).item() == 0.0


def test_stft_loss_of_a_scaled_waveform() -> None:
    x = noise(2, 4800)
    # Every magnitude is doubled: convergence |2t - t| / |t| = 1, log error ln 2.
    loss = stft_loss(2 * x, x, RESOLUTION)
    assert loss.item() == pytest.approx(1 + math.log(2), rel=1e-3)
    # The measure of convergence is the target's size, so the other way round it is half.
    assert stft_loss(x, 2 * x, RESOLUTION).item() == pytest.approx(0.5 + math.log(2), rel=1e-3)


def test_multi_resolution_loss_is_the_mean_over_resolutions() -> None:
    x, y = noise(1, 9600), noise(1, 9600).flip(1)
    each = [stft_loss(y, x, r).item() for r in RESOLUTIONS]
    assert multi_resolution_stft_loss(y, x).item() == pytest.approx(sum(each) / len(each))


def test_stft_loss_hears_a_shift_of_pulses_that_a_long_window_misses() -> None:
    x = torch.zeros(1, 9600)
    x[:, 100::240] = 0.5
    shifted = x.roll(120, dims=1)
    short = stft_loss(shifted, x, Resolution(256, 64, 256))
    long = stft_loss(shifted, x, Resolution(2048, 512, 2048))
    assert short > 3 * long


def test_mel_loss_of_a_scaled_waveform() -> None:
    x = noise(1, 24000)
    assert mel_loss(2 * x, x, MelConfig()).item() == pytest.approx(math.log(2), rel=1e-3)


def test_anti_wrap() -> None:
    turn = 2 * math.pi
    angles = torch.tensor([0.0, 0.5, -0.5, turn - 0.5, turn + 0.5, 3 * turn, math.pi])
    expected = [0.0, 0.5, 0.5, 0.5, 0.5, 0.0, math.pi]
    torch.testing.assert_close(anti_wrap(angles), torch.tensor(expected), atol=1e-5, rtol=0)


def test_phase_losses_ignore_a_constant_and_whole_turns() -> None:
    phase = 3 * noise(1, 4, 5)
    turns = (
        2 * math.pi * torch.randint(-3, 4, (1, 4, 5), generator=torch.Generator().manual_seed(1))
    )
    losses = phase_losses(phase + 0.7 + turns, phase, torch.ones(1, 4, 5))
    assert losses.group_delay.item() == pytest.approx(0.0, abs=1e-5)
    assert losses.instantaneous_frequency.item() == pytest.approx(0.0, abs=1e-5)


def test_phase_losses_tell_time_from_frequency() -> None:
    phase = torch.zeros(1, 4, 5)
    slope_in_frequency = 0.2 * torch.arange(5.0).expand(1, 4, 5)
    losses = phase_losses(slope_in_frequency, phase, torch.ones(1, 4, 5))
    assert losses.group_delay.item() == pytest.approx(0.2)
    assert losses.instantaneous_frequency.item() == 0.0
    slope_in_time = 0.3 * torch.arange(4.0)[:, None].expand(1, 4, 5)
    losses = phase_losses(slope_in_time, phase, torch.ones(1, 4, 5))
    assert losses.group_delay.item() == 0.0
    assert losses.instantaneous_frequency.item() == pytest.approx(0.3)


def test_phase_losses_weigh_a_pair_by_its_lesser_cell() -> None:
    # Frames a, b, c; errors of .4 between a and b, .1 between b and c, weights 2, 1, 3 -> 1 and 1.
    phase = torch.tensor([0.0, 0.4, 0.5])[None, :, None]
    weight = torch.tensor([2.0, 1.0, 3.0])[None, :, None]
    losses = phase_losses(phase, torch.zeros_like(phase), weight)
    assert losses.instantaneous_frequency.item() == pytest.approx(0.25)
    weight = torch.tensor([3.0, 3.0, 1.0])[None, :, None]  # -> 3 and 1
    losses = phase_losses(phase, torch.zeros_like(phase), weight)
    assert losses.instantaneous_frequency.item() == pytest.approx((3 * 0.4 + 0.1) / 4)


def test_gradients_are_finite_for_digital_silence() -> None:
    x = torch.zeros(1, 4800, requires_grad=True)
    loss = multi_resolution_stft_loss(x, noise(1, 4800)) + mel_loss(x, noise(1, 4800), MelConfig())
    loss.backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()

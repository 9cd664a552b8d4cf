import math

import pytest
import torch

from stepflow_tts.audio.griffin_lim import griffin_lim, refine_phase
from stepflow_tts.audio.mel import log_mel
from stepflow_tts.config import MelConfig

CONFIG = MelConfig()


def voice_like(num_samples=12_288):
    """Harmonics of a gliding pitch, (1, S)."""
    time = torch.arange(num_samples) / CONFIG.sample_rate
    phase = 2 * math.pi * (120 * time + 40 * time**2)
    tone = sum(torch.sin(k * phase) / k for k in range(1, 30))
    return (0.1 * tone)[None]


def test_the_mels_of_the_result_are_close_to_those_asked_for():
    mel = log_mel(voice_like(), CONFIG)
    waveform = griffin_lim(mel, CONFIG)
    assert waveform.shape == (1, 12_288)
    error = (log_mel(waveform, CONFIG).exp() - mel.exp()).norm() / mel.exp().norm()
    assert error < 0.16  # 0.6 with the random phase, 0.13 after 32 rounds


def test_momentum_converges_faster():
    mel = log_mel(voice_like(), CONFIG)

    def error(**settings):
        waveform = griffin_lim(mel, CONFIG, 32, **settings)
        return (log_mel(waveform, CONFIG).exp() - mel.exp()).norm().item()

    assert error(momentum=0.99) < 0.8 * error(momentum=0.0)


def test_the_true_phase_is_kept():
    waveform = voice_like()
    window = torch.hann_window(CONFIG.n_fft)
    spectrum = torch.stft(
        waveform,
        CONFIG.n_fft,
        CONFIG.hop_length,
        window=window,
        pad_mode="constant",
        return_complex=True,
    ).transpose(1, 2)
    for iterations in (0, 3):
        result = refine_phase(spectrum.abs(), spectrum.angle(), CONFIG, iterations)
        assert (result - waveform).abs().max() < 1e-4


def test_it_is_repeatable_and_its_seed_matters():
    mel = log_mel(voice_like(), CONFIG)

    def run(seed):
        return griffin_lim(mel, CONFIG, 2, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(run(3), run(3))
    assert torch.equal(run(0), griffin_lim(mel, CONFIG, 2))
    assert not torch.equal(run(3), run(4))


def test_the_arguments_are_not_written_to():
    mel = log_mel(voice_like(), CONFIG)
    phase = torch.zeros(1, mel.shape[1], 513)
    before = mel.clone()
    griffin_lim(mel, CONFIG, 2, initial_phase=phase)
    assert torch.equal(mel, before)
    assert torch.equal(phase, torch.zeros_like(phase))


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
def test_short_mels_give_short_waveforms(num_frames):
    result = griffin_lim(torch.full((2, num_frames, 100), -5.0), CONFIG, 2)
    assert result.shape == (2, (num_frames - 1) * 256)
    assert result.isfinite().all()


def test_digital_silence_gives_silence():
    result = griffin_lim(torch.full((1, 20, 100), math.log(CONFIG.floor)), CONFIG, 4)
    assert result.abs().max() < 1e-5

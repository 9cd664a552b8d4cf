import math

import pytest
import torch
import torchaudio.functional
from vocos.feature_extractors import MelSpectrogramFeatures

from stepflow_tts.audio.mel import log_mel, mel_pseudo_inverse, raise_contrast, raise_formants
from stepflow_tts.config import MelConfig

CONFIG = MelConfig()


def sweep(seconds=1.0):
    time = torch.arange(round(seconds * CONFIG.sample_rate)) / CONFIG.sample_rate
    return 0.5 * torch.sin(2 * math.pi * (50 * time + 5_900 * time**2))  # 50 Hz to 11.85 kHz


@pytest.mark.parametrize("num_samples", [24_000, 24_064, 24_065])
def test_log_mels_are_those_of_vocos(num_samples):
    noise = 0.1 * torch.randn(num_samples, generator=torch.Generator().manual_seed(0))
    waveform = torch.stack([noise, sweep(2.0)[:num_samples], torch.zeros(num_samples)])
    expected = MelSpectrogramFeatures(24_000, 1024, 256, 100, padding="center")(waveform)
    result = log_mel(waveform, CONFIG)
    assert result.shape == (3, 1 + num_samples // 256, 100)
    assert (result - expected.transpose(1, 2)).abs().max() <= 1e-4
    assert torch.allclose(result[2], torch.tensor(math.log(CONFIG.floor)))


def test_log_mels_can_be_trained_through_after_inference_mode():
    config = MelConfig(n_fft=512, hop_length=128, n_mels=20)  # not cached by another test
    with torch.inference_mode():
        log_mel(sweep()[None], config)
        mel_pseudo_inverse(config)
    waveform = sweep()[None].requires_grad_()
    magnitude = log_mel(waveform, config).exp() @ mel_pseudo_inverse(config)
    magnitude.sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.abs().sum() > 0


def test_the_pseudo_inverse_gives_magnitudes_with_the_same_mels():
    mel = log_mel(sweep()[None], CONFIG).exp()
    magnitude = mel @ mel_pseudo_inverse(CONFIG)
    assert magnitude.shape == (*mel.shape[:2], 513)
    again = magnitude @ torchaudio.functional.melscale_fbanks(513, 0.0, 12_000.0, 100, 24_000)
    assert (again - mel).abs().max() < 1e-3 * mel.max()


def test_contrast_raises_harmonics_and_keeps_the_mean_and_the_order_of_bands():
    bands = torch.arange(100.0)
    harmonics = torch.cos(2 * math.pi * bands / 5)  # one every five bands
    tilt = -0.05 * bands
    features = (tilt + harmonics).expand(2, 30, 100)
    raised = raise_contrast(features, 0.4)
    inner = slice(10, 90)  # at the ends the mean has neighbours on one side only
    gain = ((raised - tilt) * harmonics)[..., inner].mean() / harmonics[inner].square().mean()
    assert gain == pytest.approx(1.4, abs=0.05)
    means = [x[..., inner].unfold(2, 10, 10).mean(3) for x in (raised, features)]
    assert (means[0] - means[1]).abs().max() < 0.05


def test_contrast_does_not_raise_what_changes_from_frame_to_frame():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 500, 100, generator=generator)
    assert raise_contrast(noise, 0.4).std() < noise.std()


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_contrast_of_a_few_frames_has_their_shape(num_frames):
    features = torch.randn(1, num_frames, 100)
    assert raise_contrast(features, 0.4).shape == features.shape
    assert torch.equal(raise_contrast(features, 0.0), features)


def test_formants_are_raised_from_1_to_8_khz_and_harmonics_lowered_below():
    bands = torch.arange(100.0)
    tilt = -0.05 * bands
    ripple = torch.cos(2 * math.pi * bands / 11)  # whose mean over the neighbours is 0
    features = (tilt + ripple).expand(2, 3, 100)
    raised = raise_formants(features, 0.6, CONFIG)
    gain = ((raised - tilt) / ripple)[1, 2]
    assert gain[5] == pytest.approx(0.85, abs=0.01)
    assert gain[30] == pytest.approx(1 + 0.6 * 0.375, abs=0.02)  # 1 kHz: halfway from -.25 to 1
    assert gain[50:70].tolist() == pytest.approx([1.6] * 20, abs=0.015)
    assert gain[87] == pytest.approx(1.3, abs=0.03)  # 8 kHz: halfway back
    assert gain[94] < 1.15
    assert (gain[5:60].diff() > -1e-4).all()
    assert torch.equal(raise_formants(features, 0.0, CONFIG), features)

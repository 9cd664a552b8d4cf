"""Adversaries of the vocoder: one small network a resolution of the short-time spectrum."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from stepflow_tts.training.spectral import Resolution, magnitude, stft

DISCRIMINATOR_RESOLUTIONS = (
    Resolution(512, 128, 512),
    Resolution(1024, 256, 1024),
    Resolution(2048, 512, 2048),
)


class Judgement(NamedTuple):
    """What a discriminator says of a batch."""

    score: Tensor  # (B, T, F') high = real
    features: tuple[Tensor, ...]  # (B, C, T, F'') of each hidden layer


class SpectrumDiscriminator(nn.Module):
    """Convolutions over one complex spectrum, its magnitudes compressed to the power .3.

    Source: Defossez et al., EnCodec (arXiv 2210.13438), MS-STFT discriminator, made smaller.
    """

    def __init__(self, resolution: Resolution, channels: int) -> None:
        super().__init__()
        self.resolution = resolution
        shapes = [(3, 9), (3, 9), (3, 9), (3, 3)]  # (frames, bins)
        strides = [(1, 2), (1, 2), (1, 2), (1, 1)]
        self.layers = nn.ModuleList()
        width = 3  # compressed real and imaginary part, log magnitude
        for shape, stride in zip(shapes, strides, strict=True):
            padding = (shape[0] // 2, shape[1] // 2)
            self.layers.append(weight_norm(nn.Conv2d(width, channels, shape, stride, padding)))
            width = channels
        self.out = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=(1, 1)))

    def forward(self, waveform: Tensor) -> Judgement:
        """The judgement of (B, S) in [-1, 1]."""
        spectrum = stft(waveform, self.resolution)  # (B, T, F)
        size = magnitude(spectrum, floor=1e-3)
        gain = size.pow(-0.7)
        x = torch.stack((spectrum.real * gain, spectrum.imag * gain, size.log() / 4), dim=1)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)  # (B, C, T, F'')
            features.append(x)
        return Judgement(self.out(x).squeeze(1), tuple(features))


class Discriminator(nn.Module):
    """One `SpectrumDiscriminator` a resolution; a training step asks one of them.

    A pass at 16 channels costs .25 s of a core for 8 s of audio, more than the vocoder itself, so all
    three at once would leave a third of the updates.
    """

    def __init__(
        self, channels: int = 16, resolutions: tuple[Resolution, ...] = DISCRIMINATOR_RESOLUTIONS
    ) -> None:
        super().__init__()
        self.judges = nn.ModuleList(SpectrumDiscriminator(r, channels) for r in resolutions)

    def forward(self, waveform: Tensor, index: int) -> Judgement:
        """The judgement of (B, S) in [-1, 1] by the judge number `index`."""
        judgement: Judgement = self.judges[index](waveform)
        return judgement


def discriminator_loss(real: Judgement, fake: Judgement) -> Tensor:
    """Hinge loss: scores of real audio above 1, of made audio below -1.

    Source: Lim and Ye, Geometric GAN (arXiv 1705.02894).
    """
    return F.relu(1 - real.score).mean() + F.relu(1 + fake.score).mean()


def generator_loss(fake: Judgement) -> Tensor:
    """What the vocoder pays while its audio is not taken for real: hinge, 0 above 1."""
    return F.relu(1 - fake.score).mean()


def feature_loss(real: Judgement, fake: Judgement) -> Tensor:
    """Mean absolute distance of the hidden layers, each relative to the real one's mean size.

    Source: Kumar et al., MelGAN (arXiv 1910.06711), equation 4, normalized as in EnCodec.
    """
    terms = []
    for r, f in zip(real.features, fake.features, strict=True):
        target = r.detach()
        terms.append((f - target).abs().mean() / target.abs().mean().clamp(min=1e-6))
    return torch.stack(terms).mean()

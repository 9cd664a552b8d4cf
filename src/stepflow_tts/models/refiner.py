"""Harmonics drawn again: what a vocoder does first with the log-mels of a student of few steps."""

import math

import torch
from torch import Tensor, nn
from vocos.modules import ConvNeXtBlock

from stepflow_tts.audio.mel import band_centres
from stepflow_tts.config import MelConfig
from stepflow_tts.models.source import MEL_MEAN, MEL_STD, Pitch

WINDOW_HZ = 40.0  # half-height width of the analysis window's main lobe, which blurs every band
MIDDLE_OCTAVES = 7.4  # log2 of 169 Hz, so that the network's input is near 0


class Refiner(nn.Module):
    """Log-mels with the harmonics that a squared error took from them.

    A student of one step cannot know the pitch of its teacher's path to a few cents, and what is best
    on average between two pitches has flat harmonics. Read from what the student drew, the pitch is one;
    with it there is only one place for every harmonic. The network is told where, by a cosine and a sine
    over frequency with the period f0, and says how deep in every band. At the start it changes nothing.

    Source: our own; that harmonics are told to a network as a pattern is the idea of source-filter
    vocoders (arXiv 1904.12088).
    """

    centres: Tensor
    blur: Tensor

    def __init__(self, dim: int, num_layers: int, mel: MelConfig) -> None:
        super().__init__()
        self.n_mels = mel.n_mels
        self.inputs = nn.Linear(3 * mel.n_mels + 2, dim)
        self.blocks = nn.ModuleList(ConvNeXtBlock(dim, 3 * dim, 0.3) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.out = nn.Linear(dim, 3 * mel.n_mels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        centres = band_centres(mel)  # (M,) Hz
        width = torch.gradient(centres)[0]
        blur = (width.square() + WINDOW_HZ**2).sqrt() / 2.35  # standard deviation of a bell as wide
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("blur", blur, persistent=False)

    def forward(self, log_mel: Tensor, pitch: Pitch) -> Tensor:
        """(B, T, M) natural log and the pitch (B, T) that it has -> (B, T, M) natural log."""
        comb = self.comb(pitch)  # (B, T, 2M)
        octaves = (pitch.f0.log2() - MIDDLE_OCTAVES) * pitch.voiced
        x = (log_mel - MEL_MEAN) / MEL_STD
        x = torch.cat((x, comb, octaves[..., None], pitch.voiced[..., None]), dim=-1)
        x = self.inputs(x).transpose(1, 2)  # (B, D, T)
        for block in self.blocks:
            x = block(x)
        out = self.out(self.norm(x.transpose(1, 2)))  # (B, T, 3M)
        plain, depth = out.split([self.n_mels, 2 * self.n_mels], dim=-1)
        cosine, sine = (depth * comb).chunk(2, dim=-1)
        refined: Tensor = log_mel + MEL_STD * (plain + cosine + sine)
        return refined

    def comb(self, pitch: Pitch) -> Tensor:
        """(B, T, 2M): cosine, then sine, of 2 pi f / f0 at the bands' centres, as far as a band shows it.

        Nothing is left of it in bands that are wider than the harmonics are apart, and in frames that
        are not voiced.
        """
        f0 = pitch.f0[..., None]  # (B, T, 1)
        angle = 2 * math.pi * self.centres / f0  # (B, T, M)
        seen = torch.exp(-2 * (math.pi * self.blur / f0).square()) * pitch.voiced[..., None]
        return torch.cat((angle.cos() * seen, angle.sin() * seen), dim=-1)

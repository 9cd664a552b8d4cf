"""Worse references for clean targets, on log-mels: so that the model takes the voice and not the room."""

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

from stepflow_tts.config import FlowConfig


def degrade(reference: Tensor, flow: FlowConfig, centres: Tensor, rng: random.Random) -> Tensor:
    """The reference with noise, reverberation, a band limit or another level, each at random.

    Args:
        reference: (T, M) normalized log-mel.
        flow: its normalization.
        centres: (M,) centre frequencies of the bands in Hz.
        rng: where the draws come from.

    Returns:
        (T, M), normalized.
    """
    nats = reference * flow.std + flow.mean
    if rng.random() < 0.5:
        nats = _noise(nats, rng)
    if rng.random() < 0.3:
        nats = _reverberate(nats, rng.uniform(0.1, 0.5))
    if rng.random() < 0.5:
        top = rng.choice([3400.0, 5500.0, 7600.0, 7800.0])
        nats = torch.where(centres < top, nats, flow.log_floor)
    if rng.random() < 0.3:
        nats = nats + rng.uniform(-0.5, 0.5)  # about +- 4 dB
    return (nats.clamp(min=flow.log_floor) - flow.mean) / flow.std


def _noise(nats: Tensor, rng: random.Random) -> Tensor:
    """Stationary noise 10 to 35 dB below the speech, with a tilt over the bands."""
    level = float(nats.exp().mean().log()) - rng.uniform(10.0, 35.0) / 8.69
    tilt = torch.linspace(0.0, rng.uniform(-2.0, 0.5), nats.shape[1])
    generator = torch.Generator().manual_seed(rng.getrandbits(48))
    jitter = 0.5 * torch.randn(nats.shape, generator=generator)  # the spread of a noise's magnitude
    return torch.logaddexp(nats, level + tilt + jitter)


def _reverberate(nats: Tensor, seconds: float) -> Tensor:
    """Every band's power with an exponential tail that falls by 60 dB in `seconds`."""
    frames = max(2, round(seconds * 93.75))
    decay = torch.exp(-torch.arange(frames) * (6.9 * 2 / frames))  # power
    decay[1:] *= 4.0 / frames  # a longer tail is not louder as a whole
    power = (2 * nats).exp().T.unsqueeze(1)  # (M, 1, T)
    padded = F.pad(power, (frames - 1, 0))
    smeared = F.conv1d(padded, decay.flip(0)[None, None])  # (M, 1, T)
    return 0.5 * smeared.squeeze(1).T.clamp(min=math.exp(-32.0)).log()

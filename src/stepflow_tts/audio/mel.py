"""Log-mel features: those of charactr/vocos-mel-24khz, in (B, T, M)."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from stepflow_tts.config import FlowConfig, MelConfig

CONTRAST_BANDS = 11  # odd; the detail of a spectrum is what differs from the mean of so many


@lru_cache(maxsize=8)
def _transform(config: MelConfig, device: torch.device) -> torchaudio.transforms.MelSpectrogram:
    with torch.inference_mode(False):  # kept tensors made in inference mode would break training
        return torchaudio.transforms.MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            hop_length=config.hop_length,
            n_mels=config.n_mels,
            center=True,
            power=1,
        ).to(device)


def log_mel(waveform: Tensor, config: MelConfig) -> Tensor:
    """Natural log of the mel magnitudes.

    Args:
        waveform: (B, S) in [-1, 1], at `config.sample_rate`; S > n_fft // 2.
        config: frame and filter sizes.

    Returns:
        (B, T, M) in nats, T = 1 + S // hop_length; frame i is centred on sample i * hop_length.

    Source: vocos, feature_extractors.MelSpectrogramFeatures.
    """
    mel = _transform(config, waveform.device)(waveform)  # (B, M, T)
    return torch.log(mel.clamp(min=config.floor)).transpose(1, 2)  # (B, T, M)


@lru_cache(maxsize=8)
def mel_pseudo_inverse(config: MelConfig, device: torch.device | None = None) -> Tensor:
    """The matrix (M, F) that turns mel magnitudes into linear ones, F = n_fft // 2 + 1.

    `log_mel.exp() @ mel_pseudo_inverse(config)` is (B, T, F); some cells are slightly negative:
    clamp them. The tensor is shared between callers: do not write to it.

    Source: FreeV, arXiv 2406.08196.
    """
    with torch.inference_mode(False):
        filters: Tensor = _transform(config, torch.device("cpu")).mel_scale.fb  # (F, M)
        inverse: Tensor = torch.linalg.pinv(filters.double()).float()  # (M, F)
        return inverse.to(device)


def to_flow(features: Tensor, config: FlowConfig) -> Tensor:
    """Log-mel in nats, any shape, to what the flow sees: floored, mean 0, deviation 1."""
    return (features.clamp(min=config.log_floor) - config.mean) / config.std


def from_flow(x: Tensor, config: FlowConfig) -> Tensor:
    """The inverse of `to_flow` for values above the floor."""
    return x * config.std + config.mean


def raise_contrast(features: Tensor, amount: float) -> Tensor:
    """Log-mels with harmonics and formants that stand out more; for those that a network made.

    A network trained on a squared error draws harmonics and formants flatter than speech has them,
    and speech with flat ones sounds muffled. The detail of each spectrum, taken over three frames
    so that noise is left out of it, is raised; the mean over neighbouring bands stays.

    Args:
        features: (B, T, M) in nats, or normalized.
        amount: 0.4 makes the detail 1.4 times as large; 0 leaves the features as they are.

    Source: the idea is that of Toda and Tokuda 2007, "A speech parameter generation algorithm
    considering global variance", and of the post-filters of speech codecs.
    """
    if amount == 0:
        return features
    half = CONTRAST_BANDS // 2
    padded = F.pad(features, (half, half), mode="replicate")  # (B, T, M + bands - 1)
    detail = features - F.avg_pool1d(padded, CONTRAST_BANDS, stride=1)  # (B, T, M)
    around = F.pad(detail, (0, 0, 1, 1), mode="replicate")  # (B, T + 2, M)
    smooth = 0.25 * around[:, :-2] + 0.5 * detail + 0.25 * around[:, 2:]
    return features - detail + (1 + amount) * smooth


def band_centres(config: MelConfig) -> Tensor:
    """(M,) centre frequencies of the mel bands in Hz (HTK scale, as torchaudio's default)."""
    top = 2595.0 * math.log10(1.0 + config.sample_rate / 2 / 700.0)
    mels = torch.linspace(0.0, top, config.n_mels + 2)[1:-1]
    return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)

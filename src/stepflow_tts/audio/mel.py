"""Log-mel features: those of charactr/vocos-mel-24khz, in (B, T, M)."""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from stepflow_tts.config import FlowConfig, MelConfig

CONTRAST_BANDS = 11  # odd; the detail of a spectrum is what differs from the mean of so many
FORMANTS_FROM = 1000.0  # mel, 1 kHz: below, detail is harmonics, which are strong enough
FORMANTS_TO = 2840.0  # mel, 8 kHz: above, as much detail is drawn as speech has
FORMANTS_CROSSING = 130.0  # mel; how slowly one gives way to the other
HARMONICS_SHARE = -0.25  # of the amount that is added above


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
    detail = _detail(features)
    around = F.pad(detail, (0, 0, 1, 1), mode="replicate")  # (B, T + 2, M)
    smooth = 0.25 * around[:, :-2] + 0.5 * detail + 0.25 * around[:, 2:]
    return features - detail + (1 + amount) * smooth


def raise_formants(log_mel: Tensor, amount: float, config: MelConfig) -> Tensor:
    """Log-mels whose formants above 1 kHz stand out more and whose low harmonics less.

    What is drawn in one step is flattest between 1 and 8 kHz, and `raise_contrast` makes no
    difference between high and low. For what a vocoder hears, after its refiner: before it, DNSMOS
    gains less.

    Args:
        log_mel: (B, T, M) in nats.
        amount: 0.6 makes the detail of each spectrum 1.6 times as large far above 1 kHz and 0.85
            times far below, but for what is above 8 kHz; 0 leaves it.
        config: that says where the bands lie.

    Source: as that of `raise_contrast`.
    """
    if amount == 0:
        return log_mel
    mels = _band_mels(config).to(log_mel)
    above, below = (
        torch.sigmoid(distance / FORMANTS_CROSSING)  # (M,) 0 to 1
        for distance in (mels - FORMANTS_FROM, FORMANTS_TO - mels)
    )
    gain = amount * (HARMONICS_SHARE + (1 - HARMONICS_SHARE) * above) * below  # (M,)
    return log_mel + gain * _detail(log_mel)


def _detail(features: Tensor) -> Tensor:
    """(B, T, M): how each band differs from the mean of its neighbours and itself."""
    half = CONTRAST_BANDS // 2
    padded = F.pad(features, (half, half), mode="replicate")  # (B, T, M + bands - 1)
    return features - F.avg_pool1d(padded, CONTRAST_BANDS, stride=1)


def band_centres(config: MelConfig) -> Tensor:
    """(M,) centre frequencies of the mel bands in Hz (HTK scale, as torchaudio's default)."""
    return 700.0 * (10.0 ** (_band_mels(config) / 2595.0) - 1.0)


def _band_mels(config: MelConfig) -> Tensor:
    """(M,) centres of the mel bands in mel."""
    top = 2595.0 * math.log10(1.0 + config.sample_rate / 2 / 700.0)
    return torch.linspace(0.0, top, config.n_mels + 2)[1:-1]

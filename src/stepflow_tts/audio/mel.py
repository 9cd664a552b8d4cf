"""Log-mel features: those of charactr/vocos-mel-24khz, in (B, T, M)."""

from functools import lru_cache

import torch
import torchaudio
from torch import Tensor

from stepflow_tts.config import MelConfig


@lru_cache(maxsize=8)
def _transform(config: MelConfig, device: torch.device) -> torchaudio.transforms.MelSpectrogram:
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

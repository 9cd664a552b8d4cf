"""The vocoder: log-mels to waveforms by one inverse Fourier transform (Vocos)."""

import math
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchaudio
import yaml
from torch import Tensor, nn
from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone

from stepflow_tts.audio.griffin_lim import refine_phase
from stepflow_tts.config import MelConfig, VocoderConfig
from stepflow_tts.errors import CheckpointFormatError, CheckpointNotFoundError

MAX_LOG_MAGNITUDE = math.log(1e2)  # Vocos's safeguard; full-scale speech stays below 1e2
MAX_LOG_MEL = 10.0  # exp of more overflows in the prior; full scale is about 6


class Spectrum(NamedTuple):
    """What the network says of every cell of the short-time spectrum."""

    log_magnitude: Tensor  # (B, T, F) natural log, F = n_fft // 2 + 1
    phase: Tensor  # (B, T, F) radians, not wrapped


class MelInverse(nn.Module):
    """Linear magnitudes whose mels are the given ones: a start that the network only refines.

    The filters' pseudo-inverse has negative cells, which become holes in the logarithm: mean error of
    the log magnitude .56 nats below 2 kHz. Spreading each band over its filter and then four
    multiplicative updates keeps every cell positive: .37.

    Source: FreeV (arXiv 2406.08196) for the idea; Lee and Seung 2001 for the updates (divergence).
    """

    filters: Tensor
    spread: Tensor

    def __init__(self, mel: MelConfig, num_updates: int = 4) -> None:
        super().__init__()
        num_bins = mel.n_fft // 2 + 1
        filters = torchaudio.functional.melscale_fbanks(
            num_bins, 0.0, mel.sample_rate / 2, mel.n_mels, mel.sample_rate
        )  # (F, M)
        area = filters.sum(dim=0).clamp(min=1e-6)  # (M,): a narrow band may hold no bin at all
        height = filters.sum(dim=1).clamp(min=1e-3)  # (F,): bin 0 is in no band
        self.num_updates = num_updates
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("height", height, persistent=False)
        self.register_buffer(
            "spread", (filters / area / height[:, None]).T.contiguous(), persistent=False
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """(B, T, M) natural log -> (B, T, F) natural log, at least ln 1e-5."""
        mel = log_mel.clamp(max=MAX_LOG_MEL).exp()
        magnitude = mel @ self.spread  # (B, T, F)
        for _ in range(self.num_updates):
            ratio = mel / (magnitude @ self.filters).clamp(min=1e-9)  # (B, T, M)
            magnitude = magnitude * (ratio @ self.filters.T) / self.height  # (B, T, F)
        return magnitude.clamp(min=1e-5).log()


class Vocoder(nn.Module):
    """Vocos's backbone and inverse Fourier head, with an optional analytic start for the magnitude."""

    def __init__(self, config: VocoderConfig, mel: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.mel = mel
        self.backbone = VocosBackbone(
            mel.n_mels, config.dim, config.intermediate_dim, config.num_layers
        )
        self.head = ISTFTHead(config.dim, mel.n_fft, mel.hop_length, padding="center")
        self.prior = MelInverse(mel) if config.prior else None
        if self.prior is not None:
            self._start_at_prior()

    def _start_at_prior(self) -> None:
        """Zeros the residual, and puts pulses in the middle of their frames: phase pi * bin."""
        num_bins = self.mel.n_fft // 2 + 1
        with torch.no_grad():
            self.head.out.weight[:num_bins] = 0
            self.head.out.bias[:num_bins] = 0
            self.head.out.bias[num_bins:] = math.pi * (torch.arange(num_bins) % 2)

    def spectrum(self, log_mel: Tensor) -> Spectrum:
        """Magnitude and phase of (B, T, M) log-mels, differentiable."""
        hidden = self.backbone(log_mel.transpose(1, 2))  # (B, T, D)
        log_magnitude, phase = self.head.out(hidden).chunk(2, dim=-1)  # (B, T, F) each
        if self.prior is not None:
            log_magnitude = log_magnitude + self.prior(log_mel)
        return Spectrum(log_magnitude.clamp(max=MAX_LOG_MAGNITUDE), phase)

    def waveform(self, spectrum: Spectrum) -> Tensor:
        """(B, (T - 1) * hop_length) of a spectrum as it is, differentiable; T >= 2."""
        magnitude = spectrum.log_magnitude.exp().transpose(1, 2)  # (B, F, T)
        phase = spectrum.phase.transpose(1, 2)
        waveform: Tensor = self.head.istft(magnitude * (phase.cos() + 1j * phase.sin()))
        return waveform

    def forward(self, log_mel: Tensor) -> Tensor:
        """(B, T, M) -> (B, (T - 1) * hop_length), differentiable, without Griffin-Lim; T >= 2."""
        return self.waveform(self.spectrum(log_mel))

    @torch.no_grad()
    def decode(self, log_mel: Tensor) -> Tensor:
        """The waveform that a listener gets.

        Args:
            log_mel: (B, T, M) natural log, floor 1e-7 or above.

        Returns:
            (B, (T - 1) * hop_length), about [-1, 1] but not limited to it; always the same for the same
            input. The network's phase is made consistent by `config.griffin_lim_iterations` rounds of
            fast Griffin-Lim.
        """
        spectrum = self.spectrum(log_mel)
        return refine_phase(
            spectrum.log_magnitude.exp(),
            spectrum.phase,
            self.mel,
            self.config.griffin_lim_iterations,
        )


def load_vocos(config_path: str | Path, weights_path: str | Path) -> Vocoder:
    """A vocoder from a checkpoint of the package vocos, such as charactr/vocos-mel-24khz.

    Args:
        config_path: its config.yaml. Only mel features, VocosBackbone and a centred ISTFTHead are read;
            no class named in it is imported.
        weights_path: its pytorch_model.bin, read without unpickling any object.

    Raises:
        CheckpointNotFoundError: a file is missing.
        CheckpointFormatError: another architecture, or weights that do not fit it.
    """
    for path in (Path(config_path), Path(weights_path)):
        if not path.is_file():
            raise CheckpointNotFoundError(f"There is no file {path}. Vocos needs both its files.")
    config, mel = _read_vocos_config(Path(config_path))
    try:
        state = torch.load(weights_path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointFormatError(f"{weights_path} is not a file of tensors: {error}") from error
    # The feature extractor's window and filters follow from the config: audio.mel makes its own.
    state = {k: v for k, v in state.items() if not k.startswith("feature_extractor.")}
    vocoder = Vocoder(config, mel)
    try:
        vocoder.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise CheckpointFormatError(
            f"{weights_path} does not fit {config_path}: {error}"
        ) from error
    return vocoder.eval()


def _read_vocos_config(path: Path) -> tuple[VocoderConfig, MelConfig]:
    """Sizes from a config.yaml of vocos, whose defaults stand in where it is silent."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointFormatError(f"{path} is not YAML: {error}") from error
    features = _init_args(data, "feature_extractor", "MelSpectrogramFeatures", path)
    backbone = _init_args(data, "backbone", "VocosBackbone", path)
    head = _init_args(data, "head", "ISTFTHead", path)
    mel = MelConfig(
        sample_rate=features.get("sample_rate", 24000),
        n_fft=features.get("n_fft", 1024),
        hop_length=features.get("hop_length", 256),
        n_mels=features.get("n_mels", 100),
    )
    expected = {"n_fft": mel.n_fft, "hop_length": mel.hop_length, "padding": "center"}
    found = {"padding": "same", **head}
    wrong = [k for k, v in expected.items() if found.get(k) != v]
    if features.get("padding", "center") != "center":
        raise CheckpointFormatError(f"{path}: features must have padding 'center'.")
    if wrong:
        raise CheckpointFormatError(
            f"{path}: head.{wrong[0]} is {found.get(wrong[0])!r}; it must be {expected[wrong[0]]!r}."
        )
    if backbone.get("adanorm_num_embeddings") is not None:
        raise CheckpointFormatError(f"{path}: a backbone with adanorm reads codes, not log-mels.")
    try:
        config = VocoderConfig(
            dim=backbone["dim"],
            intermediate_dim=backbone["intermediate_dim"],
            num_layers=backbone["num_layers"],
            prior=False,
            griffin_lim_iterations=0,
        )
    except KeyError as error:
        raise CheckpointFormatError(f"{path}: backbone lacks the key {error}.") from error
    return config, mel


def _init_args(data: Any, part: str, class_name: str, path: Path) -> dict[str, Any]:
    """The `init_args` of one part, whose class must be `class_name`."""
    section = data.get(part) if isinstance(data, dict) else None
    if not isinstance(section, dict):
        raise CheckpointFormatError(f"{path} has no section {part!r}.")
    found = str(section.get("class_path", ""))
    if found.rsplit(".", 1)[-1] != class_name:
        raise CheckpointFormatError(
            f"{path}: {part} is {found!r}; only {class_name} can be read here."
        )
    arguments = section.get("init_args") or {}
    if not isinstance(arguments, dict):
        raise CheckpointFormatError(f"{path}: {part}.init_args must be a mapping.")
    return arguments

"""Frozen settings of a checkpoint, the size presets, and strict conversion to and from plain dicts."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from stepflow_tts.errors import CheckpointFormatError, OptionError

FORMAT_VERSION = 1

Conditioning = Literal["time", "token", "table"]
"""How a network learns where it is: `time` (teacher, adaLN-Zero), `token` or `table` (student)."""


@dataclass(frozen=True, slots=True)
class MelConfig:
    """Features of charactr/vocos-mel-24khz, which every vocoder here shares."""

    sample_rate: int = 24000
    n_fft: int = 1024
    hop_length: int = 256
    n_mels: int = 100
    floor: float = 1e-7  # magnitudes below are clipped before the logarithm

    @property
    def frame_rate(self) -> float:
        """Mel frames a second."""
        return self.sample_rate / self.hop_length  # 93.75


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """What the flow sees: x1 = (max(log_mel, ln floor) - mean) / std."""

    floor: float = 1e-3
    mean: float = -2.2
    std: float = 2.5
    noise_scale: float = 1.0  # standard deviation of the noise at inference and in trajectories
    contrast: float = 0.0  # of `raise_contrast` on what the flow made; 0 leaves it
    formants: float = 0.0  # of `raise_formants` on what the vocoder hears; 0 leaves it

    @property
    def log_floor(self) -> float:
        """Natural logarithm of the floor, in nats."""
        return math.log(self.floor)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Size of the acoustic model."""

    dim: int = 256
    num_layers: int = 8
    num_heads: int = 4
    ff_mult: int = 4
    patch_size: int = 2  # mel frames in one model token
    text_dim: int = 256
    text_layers: int = 4
    text_heads: int = 4
    style_dim: int = 192
    duration_dim: int = 192
    time_dim: int = 256  # teacher only: sinusoidal features of t


@dataclass(frozen=True, slots=True)
class VocoderConfig:
    """Size of the Vocos backbone and what its magnitude and phase start from."""

    dim: int = 256
    intermediate_dim: int = 768
    num_layers: int = 8
    prior: bool = True  # start from the mels' linear magnitudes and pulses at their pitch
    pitch_dim: int = 128  # the network that reads the pitch; only with a prior
    pitch_layers: int = 4
    refiner_dim: int = 160  # of the network that draws a student's harmonics again
    refiner_layers: int = 0  # 0 = none; only with a prior
    griffin_lim_iterations: int = 2  # fast Griffin-Lim from the network's phase; 0 = none


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """Everything in `config.json`: what is needed to rebuild the networks and their inputs."""

    symbols: tuple[str, ...]
    conditioning: Conditioning = "token"
    num_steps: tuple[int, ...] = (1, 2, 4)
    languages: tuple[str, ...] = ("en-us", "en-gb")
    mel: MelConfig = field(default_factory=MelConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    vocoder: VocoderConfig | None = field(default_factory=VocoderConfig)
    format_version: int = FORMAT_VERSION


PRESETS: dict[str, ModelConfig] = {
    "base": ModelConfig(
        dim=512,
        num_layers=23,
        num_heads=8,
        text_dim=512,
        text_layers=13,
        text_heads=8,
        style_dim=256,
        duration_dim=600,
    ),
    "nano": ModelConfig(),
    "test": ModelConfig(
        dim=32,
        num_layers=2,
        num_heads=2,
        ff_mult=2,
        text_dim=32,
        text_layers=1,
        text_heads=2,
        style_dim=16,
        duration_dim=16,
        time_dim=16,
    ),
}


def preset(name: str) -> ModelConfig:
    """The model size called `name`.

    Raises:
        OptionError: no preset has that name.
    """
    if name not in PRESETS:
        raise OptionError(f"There is no preset {name!r}. Choose one of: {', '.join(PRESETS)}.")
    return PRESETS[name]


ConfigT = TypeVar("ConfigT")


def to_dict(config: object) -> dict[str, Any]:
    """Plain dicts, lists and numbers of a config dataclass, ready for JSON."""
    return dataclasses.asdict(config)  # type: ignore[call-overload, no-any-return]


def from_dict(cls: type[ConfigT], data: object, *, where: str = "config") -> ConfigT:
    """An instance of the config dataclass `cls` from plain data; nothing unknown, nothing of a wrong type.

    Raises:
        CheckpointFormatError: an unknown or missing key or a value of the wrong type, named by its path.
    """
    if not isinstance(data, dict):
        raise CheckpointFormatError(f"{where} must be an object, not {type(data).__name__}.")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise CheckpointFormatError(
            f"{where} has the unknown key {unknown[0]!r}. Known: {', '.join(fields)}. "
            "It may come from a newer stepflow-tts: upgrade with pip install -U stepflow-tts."
        )
    hints = typing.get_type_hints(cls)
    missing = [
        name
        for name, f in fields.items()
        if name not in data
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise CheckpointFormatError(f"{where} lacks the key {missing[0]!r}.")
    values = {k: _convert(hints[k], v, f"{where}.{k}") for k, v in data.items()}
    return cls(**values)


def _convert(hint: Any, value: object, where: str) -> Any:
    """`value` as the annotated type `hint`, or an error that names `where`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        if args[-1] is not Ellipsis and len(value) != len(args):
            raise CheckpointFormatError(f"{where} is {value!r}; it must have {len(args)} values.")
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {k: _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value, where=where)
    return _convert_plain(hint, value, where)


def _convert_plain(hint: Any, value: object, where: str) -> Any:
    """A number, a string or one of a few allowed values."""
    if typing.get_origin(hint) is Literal:
        allowed = typing.get_args(hint)
        if value in allowed:
            return value
        choices = ", ".join(map(repr, allowed))
        raise CheckpointFormatError(f"{where} is {value!r}; allowed: {choices}.")
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise CheckpointFormatError(f"{where} is {value!r}; it must be of type {expected}.")

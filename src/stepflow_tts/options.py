"""What a call may ask for, checked before any work is done."""

import math
import operator
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
import torch

from stepflow_tts.config import CheckpointConfig
from stepflow_tts.errors import OptionError
from stepflow_tts.text.phonemize import resolve_language
from stepflow_tts.text.plan import Markup
from stepflow_tts.text.split import Pause

SPEED_RANGE = (0.5, 2.0)
MAX_SEED = 2**63 - 1
MAX_PAUSE_SECONDS = 5.0
PAUSE_KINDS: tuple[Pause, ...] = ("clause", "sentence", "line", "paragraph")


class CallOptions(TypedDict, total=False):
    """The options of `StepFlowTTS.synthesize`, for the methods that hand them on."""

    num_steps: int
    cfg_strength: float
    speed: float
    seed: int | None
    language: str | None
    pause_seconds: Mapping[Pause, float] | None
    markup: Markup


@dataclass(frozen=True, slots=True)
class Options:
    """How a call wants its speech."""

    num_steps: int
    cfg_strength: float
    speed: float
    seed: int
    pause_seconds: Mapping[Pause, float] = field(default_factory=dict)
    markup: Markup = "plain"


def check_options(
    config: CheckpointConfig,
    num_steps: int,
    cfg_strength: float,
    speed: float,
    seed: int | None,
    pause_seconds: Mapping[Pause, float] | None = None,
    markup: Markup = "plain",
) -> Options:
    """The checked settings of a call; a seed is drawn here if there is none.

    Raises:
        OptionError: one is outside what is allowed.
    """
    steps = _whole("num_steps", num_steps)
    known = config.num_steps
    if config.conditioning == "time" and steps < 1:
        raise OptionError(f"num_steps is {steps}; it must be 1 or more, and 10 is usual.")
    if config.conditioning != "time" and steps not in known:
        raise OptionError(
            f"num_steps is {steps}; this checkpoint knows {', '.join(map(str, known))}."
        )
    low, high = SPEED_RANGE
    if not low <= _number("speed", speed) <= high:
        raise OptionError(f"speed is {speed}; it must be from {low} to {high}, 1.0 is normal.")
    if not 0.0 <= _number("cfg_strength", cfg_strength) < math.inf:
        raise OptionError(f"cfg_strength is {cfg_strength}; it must be 0 or more, 0 is off.")
    chosen = secrets.randbits(32) if seed is None else _whole("seed", seed)
    if not 0 <= chosen <= MAX_SEED:
        raise OptionError(f"seed is {chosen}; it must be from 0 to 2**63 - 1, or None.")
    if markup not in ("plain", "ssml"):
        raise OptionError(f"markup is {markup!r}; it must be 'plain' or 'ssml'.")
    pauses = _pauses(pause_seconds)
    return Options(steps, float(cfg_strength), float(speed), chosen, pauses, markup)


def _pauses(pause_seconds: object) -> dict[Pause, float]:
    """The checked pauses of a call, those that it names."""
    if pause_seconds is None:
        return {}
    if not isinstance(pause_seconds, Mapping):
        raise OptionError(
            f"pause_seconds is {pause_seconds!r}; it must be a mapping such as {{'sentence': 0.5}}."
        )
    for kind, seconds in pause_seconds.items():
        if kind not in PAUSE_KINDS:
            raise OptionError(
                f"pause_seconds has the key {kind!r}; known are {', '.join(PAUSE_KINDS)}."
            )
        if not 0.0 <= _number(f"pause_seconds[{kind!r}]", seconds) <= MAX_PAUSE_SECONDS:
            raise OptionError(
                f"pause_seconds[{kind!r}] is {seconds}; it must be from 0 to "
                f"{MAX_PAUSE_SECONDS:.0f} seconds."
            )
    return {kind: float(seconds) for kind, seconds in pause_seconds.items()}


def check_language(config: CheckpointConfig, tag: str) -> str:
    """The language that a BCP 47 tag means, if the checkpoint speaks it.

    Raises:
        OptionError: it does not.
    """
    language = resolve_language(tag)
    if language not in config.languages:
        raise OptionError(
            f"This checkpoint does not speak {language!r}. "
            f"Choose one of: {', '.join(config.languages)}."
        )
    return language


def check_rate(rate: float, speed: float) -> None:
    """Nothing, when a rate of SSML and the speed of the call may be multiplied.

    Raises:
        OptionError: together they are out of the range of the speed.
    """
    low, high = SPEED_RANGE
    if not low <= rate * speed <= high:
        raise OptionError(
            f"The SSML has the rate {rate:.0%} at speed {speed}; their product is {rate * speed:.3g} "
            f"and must be from {low} to {high}."
        )


def _whole(name: str, value: object) -> int:
    """The integer that `value` is; a NumPy integer counts, a bool does not."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise OptionError(f"{name} is {value!r}; it must be a whole number.")


def _number(name: str, value: object) -> float:
    """The number that `value` is; NaN is one, which no range holds."""
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        return float(value)
    raise OptionError(f"{name} is {value!r}; it must be a number.")


def default_device() -> torch.device:
    """CUDA if there is any, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_device(name: str | torch.device) -> torch.device:
    """The device called `name`.

    Raises:
        OptionError: it does not exist here.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if device is None or device.type not in count:
        raise OptionError(f"The device {str(name)!r} is not known. Use 'cpu', 'cuda' or 'mps'.")
    if (device.index or 0) >= count[device.type]:
        found = [kind for kind, number in count.items() if number]
        raise OptionError(
            f"The device {str(name)!r} does not exist here; PyTorch finds: {', '.join(found)}."
        )
    return device

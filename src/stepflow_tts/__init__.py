"""Zero-shot text to speech in one network evaluation.

>>> from stepflow_tts import StepFlowTTS
>>> tts = StepFlowTTS.from_pretrained()
>>> speech = tts.synthesize("Hello there.")
>>> path = speech.save("hello.wav")
"""

import importlib
import logging
from typing import TYPE_CHECKING

from stepflow_tts.errors import (
    AudioError,
    CheckpointError,
    CheckpointFormatError,
    CheckpointNotFoundError,
    DownloadError,
    InputError,
    MissingDependencyError,
    OptionError,
    StepFlowError,
    SynthesisError,
    TextError,
)

if TYPE_CHECKING:
    from stepflow_tts.pipeline import StepFlowTTS
    from stepflow_tts.speech import Speech
    from stepflow_tts.voice import Voice

__version__ = "0.1.0"
__all__ = [
    "AudioError",
    "CheckpointError",
    "CheckpointFormatError",
    "CheckpointNotFoundError",
    "DownloadError",
    "InputError",
    "MissingDependencyError",
    "OptionError",
    "Speech",
    "StepFlowError",
    "StepFlowTTS",
    "SynthesisError",
    "TextError",
    "Voice",
    "__version__",
]

_LAZY = {"StepFlowTTS": "pipeline", "Speech": "speech", "Voice": "voice"}  # these import torch

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    """The public classes, imported when first used."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, also those not imported yet."""
    return sorted(__all__)

"""A checkpoint of the `test` preset with random weights: small, quick, and the same every time."""

import logging
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from stepflow_tts.config import CheckpointConfig, Conditioning, VocoderConfig, preset
from stepflow_tts.hub import build_model, save_checkpoint
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS
from stepflow_tts.voice import Voice

SAMPLE_RATE = 24_000


def make_voice_audio(
    pitch: float = 120.0, seconds: float = 2.0, sample_rate: int = SAMPLE_RATE
) -> npt.NDArray[np.float32]:
    """(S,) float32: a buzz of 20 harmonics, four syllables a second, as loud as speech."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    buzz = sum(np.sin(2 * math.pi * pitch * k * t) / k for k in range(1, 21))
    return (0.1 * buzz * (0.6 + 0.4 * np.sin(2 * math.pi * 4 * t))).astype(np.float32)


def randomize(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter drawn anew, also those that start at zero and would hide what they do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, 0.1, generator=generator)
    return module


def write_checkpoint(folder: Path, conditioning: Conditioning = "token") -> Path:
    """The folder, which now holds a checkpoint with two voices."""
    config = CheckpointConfig(
        symbols=DEFAULT_SYMBOLS,
        conditioning=conditioning,
        model=preset("test"),
        vocoder=VocoderConfig(dim=16, intermediate_dim=32, num_layers=1),
    )
    model = randomize(build_model(config), seed=1)
    with torch.no_grad():
        model.durations.output.bias.fill_(2.0)  # about 6 frames a token
    with torch.random.fork_rng():
        torch.manual_seed(2)
        vocoder = Vocoder(config.vocoder, config.mel)
    voices = {
        "anna": Voice.from_audio(make_voice_audio(210.0), SAMPLE_RATE, name="Anna"),
        "ben": Voice.from_audio(make_voice_audio(110.0), SAMPLE_RATE, name="Ben", language="en-gb"),
    }
    save_checkpoint(folder, config, model, vocoder, voices, card="# A test\n")
    return folder


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """The level of the package's logger, which every command sets, is put back."""
    logger = logging.getLogger("stepflow_tts")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's checkpoint folder. Read only."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "test")


@pytest.fixture
def checkpoint_copy(checkpoint_folder: Path, tmp_path: Path) -> Path:
    """A copy of the student's checkpoint folder, to be damaged."""
    return Path(shutil.copytree(checkpoint_folder, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's checkpoint folder. Read only."""
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "teacher", "time")


@pytest.fixture(scope="session")
def voice_audio() -> Callable[..., npt.NDArray[np.float32]]:
    """Makes reference recordings: `voice_audio(pitch, seconds, sample_rate)`."""
    return make_voice_audio

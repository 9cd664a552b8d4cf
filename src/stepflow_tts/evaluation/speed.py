"""How long synthesis takes, part by part, and how often the network was really evaluated."""

import functools
import operator
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.speech import Speech
from stepflow_tts.voice import Voice


@dataclass(frozen=True, slots=True)
class Settings:
    """What a system is asked for, in every utterance alike."""

    num_steps: int = 1
    cfg_strength: float = 0.0
    speed: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """One utterance; seconds of the wall clock."""

    chunks: int  # the text was split into
    evaluations: int  # of the flow network, in all chunks
    synthesis_seconds: float  # from text to samples, the voice being encoded already
    flow_seconds: float  # from the first evaluation's begin to the last one's end
    vocoder_seconds: float  # from the last evaluation's end to the samples
    audio_seconds: float  # of speech that came out

    @property
    def rtf(self) -> float:
        """Synthesis seconds over audio seconds."""
        return self.synthesis_seconds / self.audio_seconds


@dataclass(slots=True)
class Meter:
    """What hooks saw since the last `clear`."""

    evaluations: int = 0
    first_begin: float = 0.0
    last_end: float = 0.0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def clear(self) -> None:
        """Begin another chunk."""
        self.evaluations = 0

    def now(self) -> float:
        """The time in seconds, once the device has done all it was told to."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()


@contextmanager
def metering(model: AcousticModel) -> Iterator[Meter]:
    """A meter of every evaluation of `model` inside the block.

    An evaluation goes from the step's conditioning (a teacher's time network and modulation are part
    of its cost) to the end of the trunk. Guidance makes two of a step.
    """
    meter = Meter(device=next(model.parameters()).device)

    def begin(_module: nn.Module, _inputs: object) -> None:
        if meter.evaluations == 0:
            meter.first_begin = meter.now()

    def end(_module: nn.Module, _inputs: object, _output: object) -> None:
        meter.evaluations += 1
        meter.last_end = meter.now()

    handles = [model.step.register_forward_pre_hook(begin), model.dit.register_forward_hook(end)]
    try:
        yield meter
    finally:
        for handle in handles:
            handle.remove()


def measure(
    tts: StepFlowTTS, model: AcousticModel, text: str, voice: Voice, settings: Settings
) -> tuple[Speech, Timing]:
    """The text spoken by `tts`, and how long that took.

    Args:
        tts: the synthesizer.
        model: the acoustic model inside `tts`.
        text: what to say.
        voice: whose keys and values are computed here only if no call before has done so.
        settings: of the call.

    Raises:
        TextError, OptionError, SynthesisError: as `StepFlowTTS.synthesize`.
    """
    spoken: list[Speech] = []
    evaluations = 0
    flow_seconds = vocoder_seconds = 0.0
    with metering(model) as meter:
        start = meter.now()
        pieces = tts.stream(
            text,
            voice,
            num_steps=settings.num_steps,
            cfg_strength=settings.cfg_strength,
            speed=settings.speed,
            seed=settings.seed,
        )
        for piece in pieces:
            done = meter.now()
            spoken.append(piece)
            evaluations += meter.evaluations
            flow_seconds += meter.last_end - meter.first_begin
            vocoder_seconds += done - meter.last_end
            meter.clear()
        synthesis_seconds = meter.now() - start
    speech = functools.reduce(
        operator.add, spoken
    )  # never empty: without a chunk it is a TextError
    timing = Timing(
        chunks=len(spoken),
        evaluations=evaluations,
        synthesis_seconds=synthesis_seconds,
        flow_seconds=flow_seconds,
        vocoder_seconds=vocoder_seconds,
        audio_seconds=speech.duration_seconds,
    )
    return speech, timing

"""What the bundled weights have to do, measured without a recognizer."""

from pathlib import Path

import numpy as np
import pytest
import torch

import stepflow_tts
from stepflow_tts import Speech, StepFlowTTS
from stepflow_tts.config import MelConfig
from stepflow_tts.models.acoustic import count_parameters
from stepflow_tts.models.conditioning import StepConditioning
from stepflow_tts.training.pitch import track_pitch

TEXT = "The birch canoe slid on the smooth planks, and nobody said a word."


@pytest.fixture(scope="module")
def tts() -> StepFlowTTS:
    return StepFlowTTS.from_pretrained()


def pitch_hz(speech: Speech) -> float:
    """Median pitch of the voiced frames.

    By the project's tracker: that of torchaudio takes rough speech for an octave lower.
    """
    pitch = track_pitch(torch.from_numpy(np.array(speech.samples)), MelConfig())
    return float(pitch.f0[pitch.voiced > 0].median())


def test_is_a_student_of_at_most_16_million_parameters(tts: StepFlowTTS) -> None:
    model = tts._checkpoint.model
    assert isinstance(model.step, StepConditioning)
    assert count_parameters(model) <= 16_000_000


def test_weights_fit_into_a_wheel_of_60_mb() -> None:
    folder = Path(stepflow_tts.__file__).parent / "weights"
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) < 55e6


def test_at_least_four_voices_and_a_default(tts: StepFlowTTS) -> None:
    assert len(tts.voices) >= 4
    speech = tts.synthesize("Good morning.")
    first = tts.synthesize("Good morning.", next(iter(tts.voices)))
    np.testing.assert_array_equal(speech.samples, first.samples)


def test_one_step_is_one_evaluation(tts: StepFlowTTS) -> None:
    calls = []
    handle = tts._checkpoint.model.dit.register_forward_hook(lambda *_: calls.append(1))
    tts.synthesize("One sentence.")
    handle.remove()
    assert len(calls) == 1


def test_pace_is_that_of_speech_and_follows_the_speed(tts: StepFlowTTS) -> None:
    normal, fast = (tts.synthesize(TEXT, speed=s).duration_seconds for s in (1.0, 1.6))
    assert 2.5 < normal < 7.0  # 13 words
    assert fast == pytest.approx(normal / 1.6, rel=0.08)


def test_a_high_and_a_low_voice_stay_apart(tts: StepFlowTTS) -> None:
    high, low = (pitch_hz(tts.synthesize(TEXT, voice)) for voice in ("clara", "ben"))
    assert high > 1.4 * low

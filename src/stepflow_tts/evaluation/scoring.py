"""All scores of one recording."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

from stepflow_tts.audio.io import Samples, load_audio
from stepflow_tts.errors import OptionError
from stepflow_tts.evaluation.lists import Utterance
from stepflow_tts.evaluation.quality import SAMPLE_RATE, DistillMos, Dnsmos
from stepflow_tts.evaluation.report import Row
from stepflow_tts.evaluation.similarity import SpeakerEncoder
from stepflow_tts.evaluation.wer import Recognizer, count_errors, load_normalizer

SCORES = ("wer", "sim", "dnsmos", "distillmos")  # "wer" brings CER, deletions and insertions
SPEED = "speed"  # needs no model, and is measured whenever something is spoken


@dataclass(frozen=True, slots=True)
class Sources:
    """Where each model is; None for that of its package."""

    whisper: str = "base"
    speaker_encoder: str | None = None
    dnsmos: str | None = None
    distillmos: str | None = None


@dataclass(frozen=True, slots=True)
class Scorers:
    """The models, each a function of (S,) samples at 16 kHz; None = this score is not wanted."""

    recognize: Callable[[Samples], str] | None = None
    normalize: Callable[[str], str] = str.lower  # of both texts, before words are compared
    embed: Callable[[Samples], Samples] | None = None
    dnsmos: Callable[[Samples], dict[str, float]] | None = None
    distillmos: Callable[[Samples], float] | None = None


def load_scorers(scores: Sequence[str], sources: Sources) -> Scorers:
    """The models for the wanted scores, and no others; none for `SPEED`.

    Raises:
        OptionError: a score that there is not.
        MissingDependencyError: a package is not installed.
        CheckpointNotFoundError, DownloadError: a model is not where its source says.
    """
    unknown = [score for score in scores if score not in (*SCORES, SPEED)]
    if unknown:
        raise OptionError(
            f"There is no score {unknown[0]!r}. Choose of: {', '.join((*SCORES, SPEED))}; several "
            "as wer,sim."
        )
    return Scorers(
        recognize=Recognizer(sources.whisper) if "wer" in scores else None,
        normalize=load_normalizer() if "wer" in scores else str.lower,
        embed=SpeakerEncoder(sources.speaker_encoder) if "sim" in scores else None,
        dnsmos=Dnsmos(sources.dnsmos) if "dnsmos" in scores else None,
        distillmos=DistillMos(sources.distillmos) if "distillmos" in scores else None,
    )


def check_scorable(utterances: Sequence[Utterance], scorers: Scorers) -> None:
    """Refuse a list that lacks what a wanted score compares with.

    Raises:
        OptionError: a text or a reference is missing.
    """
    for number, utterance in enumerate(utterances, 1):
        for wanted, given, name, score in (
            (scorers.recognize, utterance.text, "text", "wer"),
            (scorers.embed, utterance.reference, "reference", "sim"),
        ):
            if wanted is not None and given is None:
                raise OptionError(
                    f"Utterance {number} ({utterance.wav}) has no {name}, which the score {score} "
                    f"needs. Give one in the list, or name the other scores with --metrics."
                )


def score(utterance: Utterance, scorers: Scorers, voices: dict[Path, Samples]) -> Row:
    """The scores of one recording.

    Args:
        utterance: with its recording, and what the scorers compare it with.
        scorers: the models.
        voices: embeddings of references by path, which this adds to.

    Raises:
        AudioError: the recording or the reference cannot be read.
    """
    assert utterance.wav is not None
    samples, seconds = load_16k(utterance.wav)
    # Names, not paths: a report may be published, and is compared with those of other machines.
    row: Row = {"wav": utterance.wav.name, "audio_seconds": seconds}
    if utterance.text is not None:
        row["text"] = utterance.text
    if utterance.reference is not None:
        row["reference"] = utterance.reference.name
    if scorers.recognize is not None and utterance.text is not None:
        heard = scorers.recognize(samples)
        errors = count_errors(scorers.normalize(utterance.text), scorers.normalize(heard))
        row |= {"heard": heard, **asdict(errors)}
    if scorers.embed is not None and utterance.reference is not None:
        if utterance.reference not in voices:
            voices[utterance.reference] = scorers.embed(load_16k(utterance.reference)[0])
        row["sim"] = cosine(voices[utterance.reference], scorers.embed(samples))
    if scorers.dnsmos is not None:
        row |= scorers.dnsmos(samples)
    if scorers.distillmos is not None:
        row["distillmos"] = scorers.distillmos(samples)
    return row


def cosine(first: Samples, second: Samples) -> float:
    """Of the angle between two embeddings (D,)."""
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def load_16k(path: Path) -> tuple[Samples, float]:
    """(S,) mono samples at the models' 16 kHz, and the recording's length in seconds.

    Raises:
        AudioError: it cannot be read.
    """
    waveform, rate = load_audio(path)
    samples: Samples = waveform.numpy()
    common = math.gcd(rate, SAMPLE_RATE)
    # SciPy's filter, not ours: the first records in benchmarks/results were scored with it.
    return (
        resample_poly(samples, SAMPLE_RATE // common, rate // common).astype(np.float32),
        len(samples) / rate,
    )

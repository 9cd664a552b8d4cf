"""Speaking a list with one or more systems, and scoring what came out."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from stepflow_tts.audio.io import Samples
from stepflow_tts.errors import InputError, OptionError, SynthesisError
from stepflow_tts.evaluation.lists import LIST_FILE, Utterance, format_recordings
from stepflow_tts.evaluation.report import Result, Row
from stepflow_tts.evaluation.scoring import Scorers, check_scorable, score
from stepflow_tts.evaluation.speed import Settings, Timing, measure
from stepflow_tts.files import write_atomic
from stepflow_tts.hub import load_checkpoint, resolve
from stepflow_tts.models.acoustic import AcousticModel, count_parameters
from stepflow_tts.options import check_options
from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.voice import Voice

logger = logging.getLogger(__name__)

PROGRESS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class System:
    """A checkpoint in memory and what it is asked for."""

    name: str  # also of its folder
    source: str
    tts: StepFlowTTS
    model: AcousticModel  # inside `tts`
    settings: Settings
    parameters: int
    vocoder_parameters: int


def load_system(
    source: str | None, settings: Settings, *, name: str | None = None, device: str | None = None
) -> System:
    """The system of a checkpoint.

    Args:
        source: None for the bundled one, a folder or a Hub id.
        settings: of every call.
        name: in tables and of the folder; None for one of checkpoint and settings.
        device: as for `StepFlowTTS`.

    Raises:
        CheckpointError: it cannot be found, fetched or understood.
        OptionError: a setting that it does not know.
    """
    checkpoint = load_checkpoint(resolve(source))
    fields = dataclasses.asdict(settings)
    check_options(checkpoint.config, **fields)
    if name is None:
        guidance = f"-w{settings.cfg_strength:g}" if settings.cfg_strength else ""
        stem = "bundled" if source is None else Path(shown(source)).name
        name = f"{stem}-n{settings.num_steps}{guidance}"
    if Path(name).name != name:
        raise OptionError(f"The name {name!r} cannot be that of a folder; use letters and digits.")
    vocoder = checkpoint.vocoder
    return System(
        name=name,
        source="bundled" if source is None else shown(source),
        tts=StepFlowTTS(checkpoint, device=device),
        model=checkpoint.model,
        settings=settings,
        parameters=count_parameters(checkpoint.model),
        vocoder_parameters=0 if vocoder is None else count_parameters(vocoder),
    )


def speak(
    systems: Sequence[System], utterances: Sequence[Utterance], folder: Path
) -> list[list[tuple[Utterance, Timing]]]:
    """Every utterance spoken by every system, with its timing; lists in the order of the systems.

    Sentence by sentence the systems take turns, so that a disturbance of the machine hits all. The
    wavs go to FOLDER/SYSTEM/NUMBER.wav, beside a list.tsv of them. A reference's voice is encoded,
    and its keys and values computed by a first word, before anything is timed.

    Raises:
        OptionError: two systems share a name, or an utterance has no text or reference.
        TextError, AudioError, SynthesisError: an utterance cannot be spoken; its number is told.
    """
    names = [system.name for system in systems]
    if len(set(names)) != len(names):
        raise OptionError(f"Two systems are called {names[0]!r}: give them names of their own.")
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
    # By reference, so that no voice's keys and values are dropped before its last utterance.
    order = sorted(range(len(utterances)), key=lambda i: str(utterances[i].reference))
    spoken: list[dict[int, tuple[Utterance, Timing]]] = [{} for _ in systems]
    voices: list[Voice] = []
    previous: Path | None = None
    told = time.monotonic()
    for done, index in enumerate(order):
        utterance = utterances[index]
        try:
            if utterance.reference != previous or not voices:
                voices = [_warm_voice(system, utterance) for system in systems]
                previous = utterance.reference
            for system, voice, results in zip(systems, voices, spoken, strict=True):
                text = _text(utterance)
                speech, timing = measure(system.tts, system.model, text, voice, system.settings)
                wav = folder / system.name / f"{index:0{len(str(len(utterances)))}d}.wav"
                speech.save(wav)
                results[index] = dataclasses.replace(utterance, wav=wav.resolve()), timing
        except (InputError, SynthesisError) as error:
            raise type(error)(f"Utterance {index + 1} of the list: {error}") from error
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            logger.info("spoken: %d of %d", done + 1, len(utterances))
    ordered = [[results[i] for i in range(len(utterances))] for results in spoken]
    for name, made in zip(names, ordered, strict=True):
        text = format_recordings([utterance for utterance, _ in made])
        write_atomic(folder / name / LIST_FILE, text.encode())
    return ordered


def evaluate_systems(
    systems: Sequence[System], utterances: Sequence[Utterance], scorers: Scorers, folder: Path
) -> list[Result]:
    """All systems' scores, speed and counts; the wavs stay in `folder`.

    Raises:
        StepFlowError: as `speak`, and as `score`.
    """
    check_scorable(utterances, scorers)
    results = []
    for system, made in zip(systems, speak(systems, utterances, folder), strict=True):
        rows = score_all([utterance for utterance, _ in made], scorers)
        for row, (_, timing) in zip(rows, made, strict=True):
            row.update(dataclasses.asdict(timing))
            row["acoustic_seconds"] = timing.synthesis_seconds - timing.vocoder_seconds
        settings: dict[str, str | int | float] = {"model": system.source}
        settings |= dataclasses.asdict(system.settings)
        results.append(
            Result(system.name, rows, settings, system.parameters, system.vocoder_parameters)
        )
    return results


def score_all(utterances: Sequence[Utterance], scorers: Scorers) -> list[Row]:
    """The scores of recordings, in order.

    Raises:
        OptionError: a text or reference that a score needs is missing.
        AudioError: a recording cannot be read.
    """
    check_scorable(utterances, scorers)
    voices: dict[Path, Samples] = {}
    rows = []
    told = time.monotonic()
    for utterance in utterances:
        rows.append(score(utterance, scorers, voices))
        logger.debug("%s", rows[-1])
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            logger.info("scored: %d of %d", len(rows), len(utterances))
    return rows


def shown(source: str) -> str:
    """What a report calls a model: a local one by its last name, one on the Hub by its id."""
    path = Path(source).expanduser()
    return path.resolve().name if path.exists() else source


def _warm_voice(system: System, utterance: Utterance) -> Voice:
    """The reference's voice, whose keys and values the system now has."""
    if utterance.reference is None:
        raise OptionError("there is no reference to take the voice from.")
    with torch.inference_mode():
        voice = system.tts.encode_voice(utterance.reference)
    measure(system.tts, system.model, "Ready.", voice, system.settings)
    return voice


def _text(utterance: Utterance) -> str:
    if utterance.text is None:
        raise OptionError("there is no text to speak.")
    return utterance.text

"""The tasks of a recipe; one folder holds all that comes of them.

FOLDER/teacher/        state.safetensors, losses.csv
FOLDER/vocoder/        the same
FOLDER/trajectories/   the teacher's paths; those kept back beside them in trajectories_held_out/
FOLDER/student/        state.safetensors, losses.csv; one folder a student, named by the recipe
FOLDER/student/refiner/  the same of its refiner
FOLDER/checkpoints/    teacher and students, as `StepFlowTTS.from_pretrained` loads them
"""

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

import torch

from stepflow_tts.config import (
    CheckpointConfig,
    Conditioning,
    VocoderConfig,
)
from stepflow_tts.errors import InputError, OptionError
from stepflow_tts.hub import build_model, load_checkpoint, save_checkpoint
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS
from stepflow_tts.training.checkpoint import STATE_FILE, load_weights
from stepflow_tts.training.data import Corpus
from stepflow_tts.training.distill import DistillTask, blend, student_from, take_trunk
from stepflow_tts.training.grow import grown
from stepflow_tts.training.loop import train
from stepflow_tts.training.processes import Processes
from stepflow_tts.training.recipe import Recipe, read_recipe
from stepflow_tts.training.refiner import RefinerTask, with_refiner, without_refiner
from stepflow_tts.training.teacher import TeacherTask
from stepflow_tts.training.trajectories import TrajectoryConfig, make_trajectories
from stepflow_tts.training.trajectory_data import Trajectories
from stepflow_tts.training.vocoder import vocoder_task
from stepflow_tts.voice import Voice

logger = logging.getLogger(__name__)

PARALLEL_TASKS = ("teacher", "vocoder", "distill", "refiner")
HELD_OUT_SHARE = 0.02  # of the hours of trajectories, in addition


def run(task: str, tables: dict[str, Any], folder: Path) -> None:
    """Do one task of a recipe; what was interrupted goes on where it was.

    Args:
        task: teacher, vocoder, trajectories, distill, refiner, or export to write checkpoints of
            what is there.
        tables: of the TOML file.
        folder: of the run.

    Raises:
        OptionError: the recipe is wrong.
        InputError: something that an earlier task makes is missing.
    """
    recipe = read_recipe(tables)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16384")  # kernels for all shapes
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    processes = Processes(recipe.device)
    if processes.count > 1 and task not in PARALLEL_TASKS:
        raise OptionError(
            f"{task} is for one process, and this run has {processes.count}: leave out accelerate "
            f"launch. It serves {', '.join(PARALLEL_TASKS)}."
        )
    if task == "teacher":
        train_teacher(recipe, folder, processes)
    elif task == "vocoder":
        train_vocoder(recipe, folder, processes)
    elif task == "trajectories":
        solve_trajectories(recipe, folder)
    elif task == "distill":
        train_student(recipe, folder, processes)
    elif task == "refiner":
        train_refiner(recipe, folder, processes)
    if processes.is_main and not export(recipe, folder) and task == "export":
        raise InputError(
            f"{folder} holds no {STATE_FILE} of a teacher or of {recipe.student!r}, so there is "
            "nothing to export. First run: stepflow-tts train teacher"
        )


def train_teacher(recipe: Recipe, folder: Path, processes: Processes) -> None:
    """Flow matching on the recipe's data, into FOLDER/teacher."""
    if recipe.start_teacher is None:
        model = build_model(_config(recipe, "time", None))
    else:
        start = load_checkpoint(Path(recipe.start_teacher))
        if start.config.conditioning != "time":
            raise OptionError(
                f"start_teacher: {recipe.start_teacher} is a student. Choose a teacher's checkpoint."
            )
        model = grown(start.model, recipe.model, len(DEFAULT_SYMBOLS))
    train_set, held_out = (_corpus(recipe, split) for split in ("train", "held_out"))
    logger.info("%d utterances, %.2f h", len(train_set.items), train_set.hours)
    task = TeacherTask(model, train_set, held_out, recipe.teacher, recipe.flow, recipe.seed)
    train(task, folder / "teacher", recipe.teacher_loop, processes=processes)


def train_vocoder(recipe: Recipe, folder: Path, processes: Processes) -> None:
    """Reconstruction, then adversarial training, into FOLDER/vocoder."""
    with processes.main_first():  # the first to come tracks the pitch of every recording
        task = vocoder_task(Path(recipe.folders[0]), recipe.vocoder, recipe.seed)
    if recipe.start_vocoder is not None:
        start = load_checkpoint(Path(recipe.start_vocoder)).vocoder
        vocoder = None if start is None else without_refiner(start)
        if vocoder is None or vocoder.config != task.vocoder.config:
            raise OptionError(
                f"start_vocoder: {recipe.start_vocoder} has no vocoder of the recipe's size. Take "
                "[vocoder.vocoder] from its config.json."
            )
        task.vocoder.load_state_dict(vocoder.state_dict())
    train(task, folder / "vocoder", recipe.vocoder_loop, processes=processes)


def solve_trajectories(recipe: Recipe, folder: Path) -> None:
    """The trained teacher's trajectories, into FOLDER/trajectories and FOLDER/trajectories_held_out."""
    teacher = load_teacher(recipe, folder).to(recipe.device)
    texts = [
        line.strip()
        for name in recipe.texts
        for line in Path(name).read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    for place, split, config in _trajectory_sets(recipe, folder):
        make_trajectories(
            teacher,
            _corpus(recipe, split),
            texts,
            place,
            config,
            symbols=DEFAULT_SYMBOLS,
            seed=recipe.seed,
        )


def train_student(recipe: Recipe, folder: Path, processes: Processes) -> None:
    """Trajectories where they are missing, then distillation, into FOLDER and the student's name."""
    teacher = load_teacher(recipe, folder)
    student = student_from(
        teacher,
        recipe.model,
        conditioning=recipe.conditioning,
        num_symbols=len(DEFAULT_SYMBOLS),
    )
    if recipe.start_student is not None:
        take_trunk(student, load_checkpoint(Path(recipe.start_student)).model)
    if processes.count == 1:
        solve_trajectories(recipe, folder)
    task = DistillTask(
        student,
        *_open_trajectories(recipe, folder),
        recipe.distill,
        recipe.seed,
        teacher=teacher.to(processes.device),
        cfg_strength=recipe.trajectories.cfg_strength,
    )
    train(task, folder / recipe.student, recipe.distill_loop, processes=processes)


def train_refiner(recipe: Recipe, folder: Path, processes: Processes) -> None:
    """The refiner of a trained student, into its folder's folder "refiner".

    Raises:
        InputError: there is no student yet, or no vocoder.
    """
    path = folder / "checkpoints" / recipe.student
    if not path.is_dir():
        raise InputError(f"{path} is missing. First run: stepflow-tts train distill")
    checkpoint = load_checkpoint(path)
    if checkpoint.vocoder is None:
        raise InputError(
            f"{path} has no vocoder to refine for. First run: stepflow-tts train vocoder"
        )
    task = RefinerTask(
        checkpoint.model.to(processes.device),
        checkpoint.vocoder.to(processes.device),
        *_open_trajectories(recipe, folder),
        recipe.refiner,
        recipe.flow,
        recipe.seed,
    )
    train(task, folder / recipe.student / "refiner", recipe.refiner_loop, processes=processes)


def _open_trajectories(recipe: Recipe, folder: Path) -> tuple[Trajectories, Trajectories]:
    """To learn from and to validate on; all that the recipe asks for have to be there."""
    sets = []
    for place, _, config in _trajectory_sets(recipe, folder):
        sets.append(Trajectories(place, recipe.data.batch_seconds, recipe.seed))
        if sets[-1].hours < config.hours - 1e-6:
            raise InputError(
                f"{place} holds {sets[-1].hours:.2f} of {config.hours:.2f} hours of trajectories. "
                "First run, in one process: stepflow-tts train trajectories"
            )
    return sets[0], sets[1]


def _trajectory_sets(recipe: Recipe, folder: Path) -> list[tuple[Path, str, TrajectoryConfig]]:
    """Where trajectories lie, what split they are of, and their settings."""
    config = recipe.trajectories
    few = dataclasses.replace(config, hours=HELD_OUT_SHARE * config.hours)
    return [
        (folder / "trajectories", "train", config),
        (folder / "trajectories_held_out", "held_out", few),
    ]


def load_teacher(recipe: Recipe, folder: Path) -> AcousticModel:
    """The averaged weights of FOLDER/teacher, in evaluation mode.

    Raises:
        InputError: no teacher has been trained there.
    """
    path = folder / "teacher" / STATE_FILE
    if not path.exists():
        raise InputError(f"{path} is missing. First run: stepflow-tts train teacher")
    model = build_model(_config(recipe, "time", None))
    model.load_state_dict(load_weights(path))
    return model.eval()


def export(recipe: Recipe, folder: Path) -> list[Path]:
    """Checkpoint folders of the averaged weights that FOLDER holds so far, written in float16.

    The vocoder is FOLDER's, or else that of the recipe's `start_vocoder`. A student gets the refiner that was
    trained for it, or else the one that this vocoder has; a teacher needs none.
    """
    vocoder = None
    if (folder / "vocoder" / STATE_FILE).exists():
        vocoder = Vocoder(recipe.vocoder.vocoder, recipe.vocoder.mel)
        vocoder.load_state_dict(load_weights(folder / "vocoder" / STATE_FILE))
    elif recipe.start_vocoder is not None:
        vocoder = load_checkpoint(Path(recipe.start_vocoder)).vocoder
    paths = sorted(Path(recipe.voices).glob("*.safetensors")) if recipe.voices else []
    voices = {path.stem: Voice.load(path) for path in paths}
    kinds: tuple[tuple[str, Conditioning], ...] = (
        ("teacher", "time"),
        (recipe.student, recipe.conditioning),
    )
    written = []
    for name, conditioning in kinds:
        path = folder / name / STATE_FILE
        if not path.exists():
            continue
        own = None
        if vocoder is not None:
            is_student = name == recipe.student
            own = _refined(recipe, folder, vocoder) if is_student else without_refiner(vocoder)
        config = _config(recipe, conditioning, None if own is None else own.config)
        if name == recipe.student and recipe.student_noise_scale is not None:
            flow = dataclasses.replace(config.flow, noise_scale=recipe.student_noise_scale)
            config = dataclasses.replace(config, flow=flow)
        model = build_model(config)
        model.load_state_dict(load_weights(path))
        if name == recipe.student and recipe.start_student is not None:
            start = load_checkpoint(Path(recipe.start_student)).model
            blend(model, start, recipe.start_student_share)
        target = folder / "checkpoints" / name
        target.parent.mkdir(exist_ok=True)
        save_checkpoint(target, config, model, own, voices)
        logger.info("%s", target)
        written.append(target)
    return written


def _refined(recipe: Recipe, folder: Path, vocoder: Vocoder) -> Vocoder:
    """The vocoder with the student's own refiner, if one has been trained."""
    path = folder / recipe.student / "refiner" / STATE_FILE
    if not path.exists():
        return vocoder
    result = with_refiner(vocoder, recipe.refiner)
    assert result.refiner is not None
    result.refiner.load_state_dict(load_weights(path))
    return result


def _config(
    recipe: Recipe, conditioning: Conditioning, vocoder: VocoderConfig | None
) -> CheckpointConfig:
    noise_scale = recipe.trajectories.noise_scale
    return CheckpointConfig(
        symbols=DEFAULT_SYMBOLS,
        conditioning=conditioning,
        flow=dataclasses.replace(recipe.flow, noise_scale=noise_scale),
        model=recipe.model,
        vocoder=vocoder,
    )


def _corpus(recipe: Recipe, split: str) -> Corpus:
    folders = [Path(name) for name in recipe.folders]
    return Corpus(folders, split, recipe.data, recipe.flow, recipe.seed)

"""Recipes: one TOML file says everything about a run, and one folder holds all that comes of it.

FOLDER/teacher/        state.safetensors, losses.csv
FOLDER/vocoder/        the same
FOLDER/trajectories/   the teacher's paths; those kept back beside them in trajectories_held_out/
FOLDER/student/        state.safetensors, losses.csv; one folder a student, named by the recipe
FOLDER/checkpoints/    teacher and students, as `StepFlowTTS.from_pretrained` loads them
"""

import dataclasses
import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stepflow_tts.config import (
    CheckpointConfig,
    Conditioning,
    FlowConfig,
    ModelConfig,
    VocoderConfig,
    from_dict,
    preset,
)
from stepflow_tts.errors import CheckpointFormatError, InputError, OptionError
from stepflow_tts.hub import build_model, load_checkpoint, save_checkpoint
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS
from stepflow_tts.training.checkpoint import STATE_FILE, load_weights
from stepflow_tts.training.data import Corpus, DataConfig
from stepflow_tts.training.distill import DistillTask, blend, student_from, take_trunk
from stepflow_tts.training.grow import grown
from stepflow_tts.training.loop import LoopConfig, train
from stepflow_tts.training.methods import DistillConfig
from stepflow_tts.training.processes import Processes
from stepflow_tts.training.teacher import TeacherConfig, TeacherTask
from stepflow_tts.training.trajectories import TrajectoryConfig, make_trajectories
from stepflow_tts.training.trajectory_data import Trajectories
from stepflow_tts.training.vocoder import VocoderTrainingConfig, vocoder_task
from stepflow_tts.voice import Voice

logger = logging.getLogger(__name__)

TAKEN = ("teacher", "vocoder", "trajectories", "trajectories_held_out", "checkpoints")
PARALLEL_TASKS = ("teacher", "vocoder", "distill")
HELD_OUT_SHARE = 0.02  # of the hours of trajectories, in addition


@dataclass(frozen=True, slots=True)
class Recipe:
    """The tables of a recipe."""

    folders: tuple[str, ...]  # prepared data
    teacher_loop: LoopConfig
    vocoder_loop: LoopConfig
    distill_loop: LoopConfig
    texts: tuple[str, ...] = ()  # files of sentences without a recording, one a line
    voices: str | None = None  # a folder of voices, *.safetensors, for the checkpoints
    start_teacher: str | None = None  # a checkpoint to begin with; it may have fewer layers
    start_vocoder: str | None = None  # a checkpoint that the vocoder's training begins with
    start_student: str | None = None  # a checkpoint whose trunk the student begins with
    start_student_share: float = 0.0  # of all its weights in the exported student
    seed: int = 0
    threads: int = 2
    device: str = "cpu"
    student: str = "student"  # its folder; students of one teacher lie beside each other
    conditioning: Conditioning = "token"  # of the student; time keeps the teacher's adaLN-Zero
    model: ModelConfig = field(default_factory=ModelConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    vocoder: VocoderTrainingConfig = field(default_factory=VocoderTrainingConfig)
    trajectories: TrajectoryConfig = field(default_factory=TrajectoryConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)


def read_recipe(tables: dict[str, Any]) -> Recipe:
    """The recipe of a TOML file's tables; `model.preset` names the sizes that the rest of `model` changes.

    Raises:
        OptionError: an unknown key, or a value of the wrong type, named by its place.
    """
    tables = dict(tables)
    model = dict(tables.get("model", {}))
    sizes = dataclasses.asdict(preset(model.pop("preset", "nano")))
    try:
        recipe = from_dict(Recipe, tables | {"model": sizes | model}, where="recipe")
    except CheckpointFormatError as error:
        raise OptionError(str(error)) from error
    if not re.fullmatch(r"\w[\w-]*", recipe.student) or recipe.student in TAKEN:
        raise OptionError(
            f"recipe.student is {recipe.student!r}; name a folder with A-Z, 0-9, _ and -, and none "
            f"of {', '.join(TAKEN)}."
        )
    if not 0 <= recipe.start_student_share < 1:
        raise OptionError(
            f"recipe.start_student_share is {recipe.start_student_share}; choose at least 0 and less "
            "than 1."
        )
    if recipe.start_student_share and recipe.start_student is None:
        raise OptionError(
            "recipe.start_student_share has no start_student to take its share from. Name a student's "
            "checkpoint as start_student, or leave start_student_share out."
        )
    return recipe


def run(task: str, tables: dict[str, Any], folder: Path) -> None:
    """Do one task of a recipe; what was interrupted goes on where it was.

    Args:
        task: teacher, vocoder, trajectories, distill, or export to write checkpoints of what is
            there.
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
        vocoder = load_checkpoint(Path(recipe.start_vocoder)).vocoder
        if not isinstance(vocoder, Vocoder) or vocoder.config != recipe.vocoder.vocoder:
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
    sets = []
    for place, _, config in _trajectory_sets(recipe, folder):
        sets.append(Trajectories(place, recipe.data.batch_seconds, recipe.seed))
        if sets[-1].hours < config.hours - 1e-6:
            raise InputError(
                f"{place} holds {sets[-1].hours:.2f} of {config.hours:.2f} hours of trajectories. "
                "First run, in one process: stepflow-tts train trajectories"
            )
    task = DistillTask(
        student,
        sets[0],
        sets[1],
        recipe.distill,
        recipe.seed,
        teacher=teacher.to(processes.device),
        cfg_strength=recipe.trajectories.cfg_strength,
    )
    train(task, folder / recipe.student, recipe.distill_loop, processes=processes)


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

    The vocoder is FOLDER's, or else that of the recipe's `start_vocoder` as it is.
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
        config = _config(recipe, conditioning, None if vocoder is None else vocoder.config)
        model = build_model(config)
        model.load_state_dict(load_weights(path))
        if name == recipe.student and recipe.start_student is not None:
            start = load_checkpoint(Path(recipe.start_student)).model
            blend(model, start, recipe.start_student_share)
        target = folder / "checkpoints" / name
        target.parent.mkdir(exist_ok=True)
        save_checkpoint(target, config, model, vocoder, voices)
        logger.info("%s", target)
        written.append(target)
    return written


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

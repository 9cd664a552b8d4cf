"""Recipes: one TOML file says everything about a run, and one folder holds all that comes of it.

FOLDER/teacher/        state.safetensors, losses.csv
FOLDER/vocoder/        the same
FOLDER/trajectories/   the teacher's paths; those kept back beside them in trajectories_held_out/
FOLDER/student/        state.safetensors, losses.csv
FOLDER/checkpoints/    teacher and student, as `StepFlowTTS.from_pretrained` loads them
"""

import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
from stepflow_tts.training.distill import DistillConfig, DistillTask, student_from
from stepflow_tts.training.loop import LoopConfig, train
from stepflow_tts.training.teacher import TeacherConfig, TeacherTask
from stepflow_tts.training.trajectories import Trajectories, TrajectoryConfig, make_trajectories
from stepflow_tts.training.vocoder import VocoderTrainingConfig, vocoder_task
from stepflow_tts.voice import Voice

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The tables of a recipe."""

    folders: tuple[str, ...]  # prepared data
    teacher_loop: LoopConfig
    vocoder_loop: LoopConfig
    distill_loop: LoopConfig
    texts: tuple[str, ...] = ()  # files of sentences without a recording, one a line
    voices: str | None = None  # a folder of voices, *.safetensors, for the checkpoints
    start_teacher: str | None = None  # a checkpoint that the teacher's training begins with
    start_vocoder: str | None = None  # a checkpoint that the vocoder's training begins with
    seed: int = 0
    threads: int = 2
    device: str = "cpu"
    conditioning: Literal["token", "table"] = "token"
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
        return from_dict(Recipe, tables | {"model": sizes | model}, where="recipe")
    except CheckpointFormatError as error:
        raise OptionError(str(error)) from error


def run(task: str, tables: dict[str, Any], folder: Path) -> None:
    """Do one task of a recipe; what was interrupted goes on where it was.

    Args:
        task: teacher, vocoder, distill, or export to write checkpoints of what is there.
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
    tasks: dict[str, Callable[[Recipe, Path], None]] = {
        "teacher": train_teacher,
        "vocoder": train_vocoder,
        "distill": train_student,
        "export": export,
    }
    tasks[task](recipe, folder)
    if task != "export":
        export(recipe, folder)


def train_teacher(recipe: Recipe, folder: Path) -> None:
    """Flow matching on the recipe's data, into FOLDER/teacher."""
    config = _config(recipe, "time", None)
    model = build_model(config)
    if recipe.start_teacher is not None:
        start = load_checkpoint(Path(recipe.start_teacher))
        if start.config.model != config.model or start.config.conditioning != "time":
            raise OptionError(
                f"start_teacher: {recipe.start_teacher} is no teacher of the recipe's size. Choose "
                "a teacher, and take [model] from its config.json."
            )
        model.load_state_dict(start.model.state_dict())
    train_set, held_out = (_corpus(recipe, split) for split in ("train", "held_out"))
    logger.info("%d utterances, %.2f h", len(train_set.items), train_set.hours)
    task = TeacherTask(model, train_set, held_out, recipe.teacher, recipe.flow, recipe.seed)
    train(task, folder / "teacher", recipe.teacher_loop, device=recipe.device)


def train_vocoder(recipe: Recipe, folder: Path) -> None:
    """Reconstruction, then adversarial training, into FOLDER/vocoder."""
    task = vocoder_task(Path(recipe.folders[0]), recipe.vocoder, recipe.seed)
    if recipe.start_vocoder is not None:
        vocoder = load_checkpoint(Path(recipe.start_vocoder)).vocoder
        if not isinstance(vocoder, Vocoder) or vocoder.config != recipe.vocoder.vocoder:
            raise OptionError(
                f"start_vocoder: {recipe.start_vocoder} has no vocoder of the recipe's size. Take "
                "[vocoder.vocoder] from its config.json."
            )
        task.vocoder.load_state_dict(vocoder.state_dict())
    train(task, folder / "vocoder", recipe.vocoder_loop, device=recipe.device)


def train_student(recipe: Recipe, folder: Path) -> None:
    """Trajectories of the trained teacher, then distillation, into FOLDER/student."""
    teacher = load_teacher(recipe, folder).to(recipe.device)
    texts = [
        line.strip()
        for name in recipe.texts
        for line in Path(name).read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    sets = []
    for suffix, split, share in (("", "train", 1.0), ("_held_out", "held_out", 0.02)):
        place = folder / f"trajectories{suffix}"
        config = dataclasses.replace(recipe.trajectories, hours=share * recipe.trajectories.hours)
        corpus = _corpus(recipe, split)
        make_trajectories(
            teacher, corpus, texts, place, config, symbols=DEFAULT_SYMBOLS, seed=recipe.seed
        )
        seconds, scale = recipe.data.batch_seconds, recipe.trajectories.noise_scale
        sets.append(Trajectories(place, seconds, scale, recipe.seed))
    student = student_from(
        teacher.cpu(),
        recipe.model,
        conditioning=recipe.conditioning,
        num_symbols=len(DEFAULT_SYMBOLS),
    )
    task = DistillTask(student, sets[0], sets[1], recipe.distill, recipe.seed)
    train(task, folder / "student", recipe.distill_loop, device=recipe.device)


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


def export(recipe: Recipe, folder: Path) -> None:
    """Checkpoint folders of the averaged weights that FOLDER holds so far, in float16."""
    vocoder = None
    if (folder / "vocoder" / STATE_FILE).exists():
        vocoder = Vocoder(recipe.vocoder.vocoder, recipe.vocoder.mel)
        vocoder.load_state_dict(load_weights(folder / "vocoder" / STATE_FILE))
    paths = sorted(Path(recipe.voices).glob("*.safetensors")) if recipe.voices else []
    voices = {path.stem: Voice.load(path) for path in paths}
    kinds: tuple[tuple[str, Conditioning], ...] = (
        ("teacher", "time"),
        ("student", recipe.conditioning),
    )
    for name, conditioning in kinds:
        path = folder / name / STATE_FILE
        if not path.exists():
            continue
        sizes = None if vocoder is None else recipe.vocoder.vocoder
        config = _config(recipe, conditioning, sizes)
        model = build_model(config)
        model.load_state_dict(load_weights(path))
        target = folder / "checkpoints" / name
        target.parent.mkdir(exist_ok=True)
        save_checkpoint(target, config, model, vocoder, voices)
        logger.info("%s", target)


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

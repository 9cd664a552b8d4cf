"""Recipes: one TOML file says everything about a run."""

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

from stepflow_tts.config import (
    Conditioning,
    FlowConfig,
    ModelConfig,
    from_dict,
    preset,
)
from stepflow_tts.errors import CheckpointFormatError, OptionError
from stepflow_tts.training.data import DataConfig
from stepflow_tts.training.loop import LoopConfig
from stepflow_tts.training.methods import DistillConfig
from stepflow_tts.training.refiner import RefinerConfig
from stepflow_tts.training.teacher import TeacherConfig
from stepflow_tts.training.trajectories import TrajectoryConfig
from stepflow_tts.training.vocoder import VocoderTrainingConfig

TAKEN = ("teacher", "vocoder", "trajectories", "trajectories_held_out", "checkpoints")


@dataclass(frozen=True, slots=True)
class Recipe:
    """The tables of a recipe."""

    folders: tuple[str, ...]  # prepared data
    teacher_loop: LoopConfig
    vocoder_loop: LoopConfig
    distill_loop: LoopConfig
    refiner_loop: LoopConfig = field(default_factory=lambda: LoopConfig(num_updates=3000))
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
    student_noise_scale: float | None = (
        None  # that it is heard with; None = that of the trajectories
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    data: DataConfig = field(default_factory=DataConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    vocoder: VocoderTrainingConfig = field(default_factory=VocoderTrainingConfig)
    trajectories: TrajectoryConfig = field(default_factory=TrajectoryConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    refiner: RefinerConfig = field(default_factory=RefinerConfig)


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
    if recipe.student_noise_scale is not None and not recipe.student_noise_scale > 0:
        raise OptionError(
            f"recipe.student_noise_scale is {recipe.student_noise_scale}; choose more than 0, or leave it "
            "out for that of the trajectories."
        )
    if min(recipe.refiner.dim, recipe.refiner.num_layers) < 1:
        raise OptionError(
            f"recipe.refiner has dim {recipe.refiner.dim} and num_layers {recipe.refiner.num_layers}; "
            "both must be at least 1."
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

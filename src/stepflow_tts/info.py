"""What a checkpoint consists of, counted without loading any weights."""

from typing import TypedDict

import torch
from torch import nn

from stepflow_tts.config import CheckpointConfig, preset
from stepflow_tts.models.acoustic import AcousticModel, count_parameters
from stepflow_tts.models.conditioning import StepConditioning, step_indices
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS


class Summary(TypedDict):
    """Sizes of the networks of one checkpoint, ready for JSON."""

    sample_rate: int  # of what is synthesized, in Hz
    languages: list[str]
    num_steps: list[int]  # what the student can be asked for
    teacher_parameters: int
    student_parameters: int
    teacher_parts: dict[str, int]
    student_parts: dict[str, int]
    vocoder_parameters: int  # 0: Griffin-Lim does its work
    step_conditioning: str  # "token" or "table", of the student
    step_tokens: int  # one for every step k of every n in `num_steps`
    step_token_parameters: int  # of the tokens alone; constants of the norms are in the parts


def preset_config(name: str) -> CheckpointConfig:
    """The config of a new checkpoint of the size called `name`.

    Raises:
        OptionError: no preset has that name.
    """
    return CheckpointConfig(symbols=DEFAULT_SYMBOLS, model=preset(name))


def summarize(config: CheckpointConfig) -> Summary:
    """The sizes of the checkpoint that `config` describes, and of its teacher or student."""
    variant = "token" if config.conditioning == "time" else config.conditioning
    with torch.device("meta"):
        teacher, student = (
            AcousticModel(
                config.model,
                conditioning=conditioning,
                num_symbols=len(config.symbols),
                n_mels=config.mel.n_mels,
                num_steps=config.num_steps,
            )
            for conditioning in ("time", variant)
        )
    # On the CPU: its filters cannot be made without memory, and it is small.
    vocoder = None if config.vocoder is None else Vocoder(config.vocoder, config.mel)
    step = student.step
    assert isinstance(step, StepConditioning)
    tokens = step.tokens if variant == "token" else step.rows
    return Summary(
        sample_rate=config.mel.sample_rate,
        languages=list(config.languages),
        num_steps=list(config.num_steps),
        teacher_parameters=count_parameters(teacher),
        student_parameters=count_parameters(student),
        teacher_parts=count_parts(teacher),
        student_parts=count_parts(student),
        vocoder_parameters=0 if vocoder is None else count_parameters(vocoder),
        step_conditioning=variant,
        step_tokens=len(step_indices(config.num_steps)),
        step_token_parameters=tokens.numel(),
    )


def count_parts(model: nn.Module) -> dict[str, int]:
    """Parameters of each child by name, and of what `model` learns itself; the sum is the whole."""
    counts = {name: count_parameters(child) for name, child in model.named_children()}
    counts |= {name: p.numel() for name, p in model.named_parameters(recurse=False)}
    return counts

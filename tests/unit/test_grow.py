"""A deeper teacher says what the one it was made from says, and its new layers can learn."""

import dataclasses

import pytest
import torch
from torch import Tensor

from stepflow_tts.config import ModelConfig, preset
from stepflow_tts.errors import OptionError
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.training.grow import grown, origins

M, SYMBOLS = 100, 12
SHALLOW = preset("test")
DEEP = dataclasses.replace(SHALLOW, num_layers=3)


def random_teacher() -> AcousticModel:
    """Every parameter is drawn, so that no gate is closed but the new ones."""
    model = AcousticModel(SHALLOW, conditioning="time", num_symbols=SYMBOLS).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
    return model


def velocity(model: AcousticModel) -> Tensor:
    """At two times, with a voice and a text."""
    generator = torch.Generator().manual_seed(2)
    reference, x = (torch.randn(2, n, M, generator=generator) for n in (30, 12))
    tokens, durations = torch.tensor([[0, 3, 4, 1]] * 2), torch.tensor([[2, 3, 5, 2]] * 2)
    voice = model.encode_voice(reference)
    conditions = model.frame_conditions(model.encode_text(tokens, voice), durations)
    return model.velocity(x, torch.tensor([0.1, 0.7]), conditions, voice)


def test_new_layers_are_spread_evenly() -> None:
    assert origins(4, 6) == [(0, False), (1, False), (1, True), (2, False), (3, False), (3, True)]
    assert origins(2, 2) == [(0, False), (1, False)]


def test_a_grown_teacher_says_the_same() -> None:
    teacher = random_teacher()
    deeper = grown(teacher, DEEP, SYMBOLS).eval()
    assert len(deeper.dit.blocks) == 3
    with torch.no_grad():
        wanted = velocity(teacher)
        assert wanted.std() > 0.01
        torch.testing.assert_close(velocity(deeper), wanted, rtol=0, atol=1e-6)


def test_the_gates_of_a_new_layer_learn() -> None:
    deeper = grown(random_teacher(), DEEP, SYMBOLS)
    velocity(deeper).square().mean().backward()
    gates = deeper.step.blocks[2].weight.grad.unflatten(0, (6, -1))[[2, 5]]  # type: ignore[union-attr]
    assert gates.abs().amax(dim=(1, 2)).min() > 1e-6


def test_the_weights_are_the_deeper_one_s_own() -> None:
    teacher = random_teacher()
    before = velocity(teacher).detach().clone()
    with torch.no_grad():
        for parameter in grown(teacher, DEEP, SYMBOLS).parameters():
            parameter.zero_()
    torch.testing.assert_close(velocity(teacher).detach(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    "config",
    [dataclasses.replace(DEEP, text_layers=2), dataclasses.replace(SHALLOW, num_layers=1)],
)
def test_what_is_not_a_deeper_one_is_refused(config: ModelConfig) -> None:
    with pytest.raises(OptionError, match="num_layers alone may be larger"):
        grown(random_teacher(), config, SYMBOLS)

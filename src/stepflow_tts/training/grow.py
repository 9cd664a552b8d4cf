"""Makes a trained teacher deeper without changing what it says."""

import re

import torch
from torch import Tensor

from stepflow_tts.config import ModelConfig
from stepflow_tts.errors import OptionError
from stepflow_tts.models.acoustic import AcousticModel

GATES = (2, 5)  # of the six rows of a modulation: shift, scale, gate, twice
BLOCK = re.compile(r"(dit\.blocks|step\.blocks)\.(\d+)\.(.+)")
VOICE_ROWS = "dit.voice_conditioning.rows"


def origins(num_layers: int, wanted: int) -> list[tuple[int, bool]]:
    """For each layer of the deeper trunk, the layer that it is a copy of, and whether it is new.

    The new ones are spread evenly, each right after its origin: 4 to 6 gives 0 1 1' 2 3 3'.
    """
    copies = [wanted * (i + 1) // num_layers - wanted * i // num_layers for i in range(num_layers)]
    return [(i, nth > 0) for i, count in enumerate(copies) for nth in range(count)]


@torch.no_grad()
def grown(teacher: AcousticModel, config: ModelConfig, num_symbols: int) -> AcousticModel:
    """A teacher of `config.num_layers` layers that equals `teacher`, which has no more.

    The new layers are copies whose gates are closed, for the target and for the voice.

    Raises:
        OptionError: `config` differs in something else, or has fewer layers.
    """
    model = AcousticModel(
        config, conditioning="time", num_symbols=num_symbols, n_mels=teacher.n_mels
    )
    if config.num_layers < len(teacher.dit.blocks):
        raise _mismatch("num_layers")
    old = teacher.state_dict()
    layers = origins(len(teacher.dit.blocks), config.num_layers)
    state: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        found = BLOCK.fullmatch(key)
        if found:
            origin, is_new = layers[int(found[2])]
            value = old.get(f"{found[1]}.{origin}.{found[3]}")
            if value is not None and is_new and found[1] == "step.blocks":
                value = _close(value.unflatten(0, (6, -1)), 0).flatten(0, 1)
        elif key == VOICE_ROWS:
            value = old[key][[origin for origin, _ in layers]]
            new = torch.tensor([is_new for _, is_new in layers])
            value[new] = _close(value[new], 1)
        else:
            value = old.get(key)
        if value is None or value.shape != tensor.shape:
            raise _mismatch(key)
        state[key] = value
    model.load_state_dict(state)
    return model


def _mismatch(name: str) -> OptionError:
    return OptionError(
        f"The teacher to start from differs from the recipe's [model] in {name}. Take [model] from "
        "its config.json; num_layers alone may be larger."
    )


def _close(rows: Tensor, dim: int) -> Tensor:
    """The same with the gates, along the axis of the six rows, at zero."""
    closed = rows.clone()
    closed.index_fill_(dim, torch.tensor(GATES), 0.0)
    return closed

"""Settings: strict conversion, presets."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import pytest

from stepflow_tts.config import (
    PRESETS,
    CheckpointConfig,
    FlowConfig,
    MelConfig,
    ModelConfig,
    from_dict,
    preset,
    to_dict,
)
from stepflow_tts.errors import CheckpointFormatError, OptionError


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclasses.dataclass(frozen=True)
class Sample:
    """One field of every kind that configs have."""

    name: str
    rate: float = 1.0
    pair: tuple[float, float] = (1.0, 2.0)
    many: tuple[int, ...] = ()
    kind: Literal["a", "b"] = "a"
    shares: Mapping[str, float] = dataclasses.field(default_factory=dict)
    inner: Inner | None = None
    flag: bool = False


def test_what_to_dict_gives_from_dict_takes() -> None:
    config = CheckpointConfig(
        symbols=("<bos>", "<eos>", "a"),
        conditioning="table",
        flow=FlowConfig(mean=-3.0),
        model=preset("test"),
        vocoder=None,
    )
    assert from_dict(CheckpointConfig, to_dict(config)) == config


def test_lists_become_tuples_and_whole_numbers_become_floats() -> None:
    given = {"name": "x", "rate": 2, "pair": [1, 2], "many": [3], "shares": {"real": 1}}
    sample = from_dict(Sample, given)
    assert sample == Sample("x", 2.0, (1.0, 2.0), (3,), shares={"real": 1.0})
    assert isinstance(sample.rate, float)
    assert [type(v) for v in sample.pair] == [float, float]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"nmae": "x"}, "sample has the unknown key 'nmae'"),
        ({}, "sample lacks the key 'name'"),
        ([], "sample must be an object, not list"),
        ({"name": 3}, "sample.name is 3; it must be of type str"),
        ({"name": "x", "rate": "fast"}, "sample.rate is 'fast'; it must be of type float"),
        ({"name": "x", "rate": True}, "sample.rate is True"),
        ({"name": "x", "flag": 1}, "sample.flag is 1; it must be of type bool"),
        ({"name": "x", "many": [1, 2.5]}, r"sample.many\[1\] is 2.5; it must be of type int"),
        ({"name": "x", "many": [True]}, r"sample.many\[0\] is True"),
        ({"name": "x", "many": 5}, "sample.many is 5"),
        ({"name": "x", "pair": [1.0]}, "sample.pair is .*it must have 2 values"),
        ({"name": "x", "pair": [1.0, 2.0, 3.0]}, "it must have 2 values"),
        ({"name": "x", "kind": "c"}, "sample.kind is 'c'; allowed: 'a', 'b'"),
        ({"name": "x", "shares": {"real": "1"}}, "sample.shares.real is '1'"),
        ({"name": "x", "inner": {"width": 1}}, "sample.inner has the unknown key 'width'"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_place(data: Any, said: str) -> None:
    with pytest.raises(CheckpointFormatError, match=said):
        from_dict(Sample, data, where="sample")


def test_an_optional_part_may_be_none_or_given() -> None:
    assert from_dict(Sample, {"name": "x", "inner": None}).inner is None
    assert from_dict(Sample, {"name": "x", "inner": {"size": 5}}).inner == Inner(5)


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"'huge'\. Choose one of: base, nano, test"):
        preset("huge")


@pytest.mark.parametrize("name", PRESETS)
def test_heads_divide_the_widths_of_every_preset(name: str) -> None:
    config = preset(name)
    assert config.dim % (2 * config.num_heads) == 0  # rotary positions turn pairs
    assert config.text_dim % (2 * config.text_heads) == 0
    assert config.style_dim % 4 == 0  # heads of the style's pooling
    assert config.time_dim % 2 == 0


def test_configs_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().dim = 3  # type: ignore[misc]


def test_frame_rate_and_floor() -> None:
    assert MelConfig().frame_rate == 93.75
    assert FlowConfig(floor=1e-3).log_floor == pytest.approx(-6.9078, abs=1e-4)

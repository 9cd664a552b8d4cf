"""Durations: rounding, speed and spreading, by hand."""

import math

import pytest
import torch

from stepflow_tts.config import preset
from stepflow_tts.models.duration import DurationPredictor, round_durations, spread

NONE = torch.zeros(3, dtype=torch.long)


def logs(*frames: float) -> torch.Tensor:
    return torch.tensor(frames, dtype=torch.float64).log1p()


def test_ends_are_rounded_not_lengths() -> None:
    # ends 1.4, 2.8, 4.2 -> 1, 3, 4
    assert round_durations(logs(1.4, 1.4, 1.4), speed=1.0, minimum=NONE).tolist() == [1, 2, 1]


def test_rounding_errors_do_not_add_up() -> None:
    durations = round_durations(
        logs(*[1.3] * 1000), speed=1.0, minimum=torch.zeros(1000, dtype=torch.long)
    )
    assert durations.sum() == 1300


def test_speed_divides_time() -> None:
    # twice as fast: ends 2.2, 3.3, 6.3 -> 2, 3, 6; half as fast: 8.8, 13.2, 25.2 -> 9, 13, 25
    frames = logs(4.4, 2.2, 6.0)
    assert round_durations(frames, speed=2.0, minimum=NONE).tolist() == [2, 1, 3]
    assert round_durations(frames, speed=0.5, minimum=NONE).tolist() == [9, 4, 12]


def test_a_phone_keeps_its_minimum_and_a_mark_may_vanish() -> None:
    minimum = torch.tensor([1, 0, 1])
    assert round_durations(logs(0.1, 0.1, 0.1), speed=1.0, minimum=minimum).tolist() == [1, 0, 1]
    assert round_durations(logs(9.0, 3.0, 2.0), speed=1.0, minimum=minimum).tolist() == [9, 3, 2]


def test_predictions_out_of_range_are_held() -> None:
    wild = torch.tensor([-5.0, 100.0, math.log(3)])
    assert round_durations(wild, speed=1.0, minimum=NONE).tolist() == [0, 200, 2]


def test_spread_repeats_each_token_for_its_frames() -> None:
    encoding = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]] * 2)
    durations = torch.tensor([[2, 0, 3], [1, 2, 0]])
    taken, features = spread(encoding, durations)
    assert taken[0, :, 0].tolist() == [1, 1, 3, 3, 3]
    assert taken[0, :, 1].tolist() == [10, 10, 30, 30, 30]
    assert taken[1, :, 0].tolist() == [1, 2, 2, 0, 0]  # nothing after the item's end
    assert features.shape == (2, 5, 6)
    assert features[1, 3:].abs().max() == 0


def test_position_features_by_hand() -> None:
    _, features = spread(torch.ones(1, 2, 1), torch.tensor([[1, 2]]))
    middle, quarter = math.pi / 2, math.pi / 4  # half of a frame in one frame, and in two

    def row(p: float, length: int) -> list[float]:
        turns = [math.cos(p), math.sin(p), math.cos(2 * p), math.sin(2 * p)]
        return [*turns, math.log(1 + length) / 3, 1 / length]

    expected = [row(middle, 1), row(quarter, 2), row(3 * quarter, 2)]
    torch.testing.assert_close(features[0], torch.tensor(expected))


@pytest.fixture
def predictor() -> DurationPredictor:
    model = DurationPredictor(preset("test"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model


def test_padding_does_not_change_durations(predictor: DurationPredictor) -> None:
    generator = torch.Generator().manual_seed(1)
    encoding, style = (torch.randn(*s, generator=generator) for s in ((2, 6, 32), (2, 16)))
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    together = predictor(encoding, style, mask)
    torch.testing.assert_close(together[:1], predictor(encoding[:1], style[:1], None))
    alone = predictor(encoding[1:, :3], style[1:], None)
    torch.testing.assert_close(together[1:, :3], alone)


def test_no_gradient_flows_into_the_encoding_and_some_into_the_style(
    predictor: DurationPredictor,
) -> None:
    encoding, style = (
        torch.ones(1, 3, 32, requires_grad=True),
        torch.ones(1, 16, requires_grad=True),
    )
    predictor(encoding, style, None).sum().backward()
    assert encoding.grad is None
    assert style.grad is not None
    assert style.grad.abs().max() > 0

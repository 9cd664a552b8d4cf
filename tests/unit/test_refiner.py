"""The refiner: an exact start, harmonics where the pitch puts them, and how a student's is trained."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stepflow_tts.audio.griffin_lim import refine_phase
from stepflow_tts.audio.mel import band_centres, raise_formants
from stepflow_tts.config import CheckpointConfig, FlowConfig, MelConfig, VocoderConfig, preset
from stepflow_tts.errors import CheckpointFormatError, OptionError
from stepflow_tts.hub import load_checkpoint, save_checkpoint
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.refiner import Refiner
from stepflow_tts.models.source import Pitch
from stepflow_tts.models.vocoder import Vocoder
from stepflow_tts.training.refiner import (
    RefinerConfig,
    RefinerTask,
    with_refiner,
    without_refiner,
)
from stepflow_tts.training.trajectory_data import TrajectoryBatch

MEL = MelConfig()
SMALL = VocoderConfig(dim=16, intermediate_dim=32, num_layers=1, pitch_dim=8, pitch_layers=1)
REFINED = dataclasses.replace(SMALL, refiner_dim=16, refiner_layers=1)
SYMBOLS = 12


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pitch(hertz: float, num_frames: int, voiced: float = 1.0) -> Pitch:
    f0 = torch.full((1, num_frames), hertz)
    return Pitch(f0, torch.zeros_like(f0), torch.full_like(f0, voiced))


def vocoder(config: VocoderConfig) -> Vocoder:
    torch.manual_seed(0)
    return Vocoder(config, MEL).eval()


def disturb(refiner: Refiner) -> None:
    """Weights that change what goes through."""
    with torch.no_grad():
        refiner.out.weight.copy_(0.02 * draw(*refiner.out.weight.shape, seed=7))


def test_at_the_start_nothing_changes() -> None:
    refiner, log_mel = Refiner(16, 2, MEL), draw(1, 9, 100)
    assert torch.equal(refiner(log_mel, pitch(150.0, 9)), log_mel)
    disturb(refiner)
    assert (refiner(log_mel, pitch(150.0, 9)) - log_mel).abs().max() > 0.1


def test_the_comb_has_its_teeth_on_the_harmonics() -> None:
    f0 = 300.0
    cosine, sine = Refiner(16, 1, MEL).comb(pitch(f0, 1))[0, 0].chunk(2)
    harmonics = band_centres(MEL) / f0  # (M,) 1 at the first
    low = harmonics < 4  # where bands are narrower than the harmonics are apart
    on = (harmonics - harmonics.round()).abs() < 0.05
    between = (harmonics % 1 - 0.5).abs() < 0.05
    assert (low & on & (harmonics > 0.9)).any()
    assert (cosine[low & on] > 0.5).all()
    assert (cosine[low & between] < -0.5).all()
    quarter = low & ((harmonics % 1 - 0.25).abs() < 0.1)
    assert (sine[quarter] > 0.5).all()  # rising out of a harmonic
    assert cosine[-1].abs() < 1e-2  # the last band is as wide as one and a half of them


def test_without_a_voice_there_is_no_comb() -> None:
    refiner = Refiner(16, 1, MEL)
    assert refiner.comb(pitch(300.0, 3, voiced=0.0)).abs().max() == 0
    disturb(refiner)
    log_mel = draw(1, 3, 100)
    with torch.no_grad():
        refined = [refiner(log_mel, pitch(hertz, 3, voiced=0.0)) for hertz in (100.0, 300.0)]
    assert torch.equal(*refined)  # whatever the pitch is there


def test_a_vocoder_hears_its_refiner() -> None:
    plain, refined = vocoder(SMALL), with_refiner(vocoder(SMALL), RefinerConfig(16, 1))
    refined.eval()
    log_mel = -5 + 2 * draw(2, 20, 100)
    assert torch.equal(plain.decode(log_mel), refined.decode(log_mel))
    assert refined.refiner is not None
    assert refined.pitch is not None
    disturb(refined.refiner)
    read = refined.pitch.predict(log_mel)
    with torch.no_grad():
        spectrum = plain.spectrum(refined.refiner(log_mel, read), read)
    direction = spectrum.direction.angle()
    wanted = refine_phase(spectrum.log_magnitude.exp(), direction, MEL, 2)
    got = refined.decode(log_mel)
    assert (got - plain.decode(log_mel)).abs().max() > 1e-3
    assert torch.equal(got, wanted)


def test_formants_are_raised_after_the_refiner() -> None:
    refined = with_refiner(vocoder(SMALL), RefinerConfig(16, 1)).eval()
    assert refined.refiner is not None
    assert refined.pitch is not None
    disturb(refined.refiner)
    log_mel = -5 + 2 * draw(2, 20, 100)
    read = refined.pitch.predict(log_mel)
    with torch.no_grad():
        heard = raise_formants(refined.refiner(log_mel, read), 0.6, MEL)
        spectrum = refined.spectrum(heard, read)
    direction = spectrum.direction.angle()
    wanted = refine_phase(spectrum.log_magnitude.exp(), direction, MEL, 2)
    assert torch.equal(refined.decode(log_mel, 0.6), wanted)


def test_it_comes_and_goes_without_touching_the_rest() -> None:
    plain = vocoder(SMALL)
    refined = with_refiner(plain, RefinerConfig(16, 1))
    assert refined.config == REFINED
    assert without_refiner(plain) is plain
    back = without_refiner(refined)
    assert back.config == SMALL
    for key, value in plain.state_dict().items():
        assert torch.equal(value, refined.state_dict()[key])
        assert torch.equal(value, back.state_dict()[key])
    again = with_refiner(refined, RefinerConfig(24, 2))  # in place of the one it has
    assert again.config.refiner_dim == 24
    assert again.config.refiner_layers == 2


def test_without_a_pitch_there_is_none() -> None:
    with pytest.raises(CheckpointFormatError, match=r"refiner_layers needs vocoder\.prior"):
        Vocoder(dataclasses.replace(REFINED, prior=False), MEL)
    with pytest.raises(OptionError, match="needs a vocoder that reads the pitch"):
        with_refiner(vocoder(dataclasses.replace(SMALL, prior=False)), RefinerConfig())


def test_a_checkpoint_keeps_it(tmp_path: Path) -> None:
    model = AcousticModel(preset("test"), conditioning="token", num_symbols=SYMBOLS)
    symbols = tuple("abcdefghijkl")
    config = CheckpointConfig(symbols=symbols, model=preset("test"), vocoder=REFINED)
    refined = vocoder(REFINED)
    assert refined.refiner is not None
    disturb(refined.refiner)
    save_checkpoint(tmp_path, config, model, refined, {}, dtype=torch.float32)
    loaded = load_checkpoint(tmp_path)
    assert loaded.vocoder is not None
    log_mel = -5 + 2 * draw(1, 20, 100)
    assert torch.equal(loaded.vocoder.eval().decode(log_mel), refined.decode(log_mel))


class Fake:
    """Trajectories whose ends are known."""

    def batch(self, step: int) -> TrajectoryBatch:
        """Two items of 12 and 9 frames."""
        states = draw(5, 2, 12, 100, seed=step % 3)
        mask = torch.arange(12) < torch.tensor([[12], [9]])
        tokens = torch.tensor([[0, 3, 4, 1], [0, 7, 9, 1]])
        durations = torch.tensor([[2, 4, 4, 2], [2, 3, 3, 1]])
        return TrajectoryBatch(
            states * mask[..., None], mask, tokens, tokens >= 0, durations, draw(2, 30, 100)
        )


def task(**changes: float) -> RefinerTask:
    torch.manual_seed(1)
    student = AcousticModel(preset("test"), conditioning="token", num_symbols=SYMBOLS)
    config = dataclasses.replace(RefinerConfig(16, 1, validation_batches=1), **changes)  # type: ignore[arg-type]
    data: object = Fake()
    return RefinerTask(
        student,
        vocoder(SMALL),
        data,  # type: ignore[arg-type]
        data,  # type: ignore[arg-type]
        config,
        FlowConfig(contrast=0.4),
        seed=0,
    )


def test_it_learns_and_nothing_else_does() -> None:
    learning = task(teacher_share=0.0)
    optimizer = torch.optim.Adam(learning.refiner.parameters(), lr=3e-3)
    before = learning.validate(learning.refiner, 0)
    assert before["held_out_draft"] == pytest.approx(before["held_out_refined"])
    for step in range(60):
        (loss,) = learning.losses(learning.batch(step), step)
        optimizer.zero_grad()
        loss.value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = learning.validate(learning.refiner, 60)
    assert after["held_out_draft"] == before["held_out_draft"]
    assert after["held_out_refined"] < 0.8 * before["held_out_refined"]
    frozen = (*learning.student.parameters(), *learning.pitch.parameters())
    assert all(p.grad is None for p in frozen)


def test_the_teacher_s_own_log_mels_want_no_change() -> None:
    (loss,) = task(teacher_share=1.0).losses(Fake().batch(0), 0)
    assert loss.logs == {"refined_teacher": 0.0}
    (loss,) = task(teacher_share=0.0).losses(Fake().batch(0), 0)
    assert next(iter(loss.logs.values())) > 0.1


def test_the_distance_is_that_of_the_flow_s_units_over_real_frames() -> None:
    learning = task(teacher_share=0.0)
    with torch.no_grad():
        learning.refiner.out.bias[:100] = 1.0  # three nats more in every band
    batch = Fake().batch(0)
    example = learning._example(batch)
    same = example._replace(log_mel=example.target)
    expected = (3.0 / FlowConfig().std) ** 2
    assert learning._distance(learning.refiner, same, batch).item() == pytest.approx(expected)
    assert math.isclose(learning._distance(None, same, batch).item(), 0.0)

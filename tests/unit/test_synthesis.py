"""The parts of a chunk's way to sound, against values known beforehand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stepflow_tts.errors import SynthesisError
from stepflow_tts.hub import Checkpoint, load_checkpoint
from stepflow_tts.models.conditioning import StepIndex
from stepflow_tts.models.shapes import FRAME_STEP, TOKEN_STEP
from stepflow_tts.options import Options
from stepflow_tts.synthesis import (
    SLOWEST,
    check_is_speech,
    draft_part,
    draw_noise,
    fade_ends,
    flow_of,
    limit,
    minimum_frames,
    sample,
    take_of,
    warp,
)
from stepflow_tts.text.plan import Part

RATE = 24_000
OPTIONS = Options(num_steps=1, cfg_strength=0.0, speed=1.0, seed=0)


@pytest.fixture
def checkpoint(checkpoint_folder: Path) -> Checkpoint:
    return load_checkpoint(checkpoint_folder)


def sine(amplitude: float, seconds: float = 0.5) -> torch.Tensor:
    t = torch.arange(round(seconds * RATE)) / RATE
    return amplitude * torch.sin(2 * math.pi * 200 * t)


def test_noise_depends_on_seed_and_index_alone() -> None:
    torch.manual_seed(1)
    noise = draw_noise(500, 100, seed=3, index=2)
    torch.manual_seed(2)

    assert torch.equal(noise, draw_noise(500, 100, seed=3, index=2))
    others = [
        draw_noise(500, 100, *key) for key in ((3, 1), (2, 3), (4, 2), (0, 0), (2**63 - 1, 0))
    ]
    for other in others:
        assert abs(torch.corrcoef(torch.stack((noise.flatten(), other.flatten())))[0, 1]) < 0.02
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02


def test_noise_is_the_same_in_every_version() -> None:
    values = draw_noise(2, 100, seed=0, index=0).flatten()[:3].tolist()

    assert values == pytest.approx([1.16534, -1.40532, 1.25045], abs=1e-4)


def test_phones_and_ends_last_at_least_a_frame() -> None:
    symbols = ("<bos>", "<eos>", " ", "ˈ", "a", "ː", "θ", "ʔ", "ᵻ", ".", "̩")

    assert minimum_frames(symbols).tolist() == [1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(("num_steps", "cfg_strength"), [(1, 0.0), (2, 0.0), (1, 0.7), (4, 0.05)])
def test_sampling_is_euler_with_guidance(
    checkpoint: Checkpoint, num_steps: int, cfg_strength: float
) -> None:
    model, noise = checkpoint.model, draw_noise(9, 100, 0, 0)
    voice = model.encode_voice(draw_noise(40, 100, 1, 0))
    conditions = draw_noise(9, 32, 2, 0)

    x = noise
    for k in range(num_steps):
        step = StepIndex(num_steps, k)
        v = model.velocity(x, step, conditions, voice)
        v0 = model.velocity(x, step, model.null_conditions(1, 9), model.null_voice(1))
        x = x + (v + cfg_strength * (v - v0)) / num_steps

    got = sample(model, noise, conditions, voice, num_steps, cfg_strength)
    assert torch.allclose(got, x, atol=1e-5)
    assert not torch.allclose(v, v0, atol=1e-3)


def test_a_teacher_is_asked_at_the_flow_times(teacher_folder: Path) -> None:
    model, noise = load_checkpoint(teacher_folder).model, draw_noise(8, 100, 0, 0)
    voice, conditions = model.encode_voice(noise), draw_noise(8, 32, 2, 0)

    x = noise
    for t in (0.0, 0.2, 0.4, 0.6, 0.8):
        x = x + model.velocity(x, torch.tensor([t]), conditions, voice) / 5

    assert torch.allclose(sample(model, noise, conditions, voice, 5, 0.0), x, atol=1e-5)


def chunk_of(checkpoint: Checkpoint, **changes: object) -> torch.Tensor:
    model = checkpoint.model
    voice = model.encode_voice(draw_noise(60, 100, 1, 0))
    part = Part([0, *range(30, 50), 1], "a" * 20, "en-us", (), 0.0)
    options = replace(OPTIONS, **changes)
    draft = draft_part(checkpoint.config, model, part, voice, options, index=0)
    (x,) = flow_of(model, [draft], voice, options)
    return take_of(checkpoint.config, checkpoint.vocoder, draft, x, index=0).waveform


def test_drafts_together_become_what_they_become_alone(checkpoint: Checkpoint) -> None:
    model = checkpoint.model
    voice = model.encode_voice(draw_noise(60, 100, 1, 0))
    drafts = [
        draft_part(
            checkpoint.config,
            model,
            Part([0, *range(30, 30 + n), 1], "a" * n, "en-us", (), 0.0),
            voice,
            OPTIONS,
            index=n,
        )
        for n in (20, 3, 11)
    ]
    together = flow_of(model, drafts, voice, OPTIONS)
    assert len({x.shape for x in together}) == 3
    for draft, x in zip(drafts, together, strict=True):
        (alone,) = flow_of(model, [draft], voice, OPTIONS)
        torch.testing.assert_close(x, alone, rtol=0, atol=1e-4)


def test_networks_see_few_lengths_and_that_changes_nothing(checkpoint: Checkpoint) -> None:
    model, vocoder = checkpoint.model, checkpoint.vocoder
    assert vocoder is not None
    voice = model.encode_voice(draw_noise(60, 100, 1, 0))
    seen: list[tuple[int, int]] = []

    def see(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        step = {model.text: TOKEN_STEP, model.dit: FRAME_STEP}.get(module, FRAME_STEP)
        seen.append((inputs[0].shape[-1 if module is vocoder.backbone else 1], step))

    hooks = [
        module.register_forward_pre_hook(see)
        for module in (model.text, model.dit, vocoder.backbone)
    ]
    for n in (3, 20):
        part = Part([0, *range(30, 30 + n), 1], "a" * n, "en-us", (), 0.0)
        draft = draft_part(checkpoint.config, model, part, voice, OPTIONS, index=0)
        (x,) = flow_of(model, [draft], voice, OPTIONS)
        take = take_of(checkpoint.config, vocoder, draft, x, index=0)
        assert len(seen) == 3
        assert all(length % step == 0 for length, step in seen), seen
        seen.clear()
        assert len(take.waveform) == (int(draft.durations.sum()) - 1) * 256

        exact = sample(model, draft.noise, draft.conditions, voice, 1, 0.0)
        torch.testing.assert_close(x, exact, rtol=0, atol=1e-4)
        encoding = model.encode_text(torch.tensor([part.token_ids]), voice)
        exact = model.frame_conditions(encoding, draft.spoken[None])
        torch.testing.assert_close(draft.conditions, exact, rtol=0, atol=1e-4)
        seen.clear()
    for hook in hooks:
        hook.remove()


def test_without_noise_the_seed_is_not_heard(checkpoint: Checkpoint) -> None:
    flow = replace(checkpoint.config.flow, noise_scale=0.0)
    noiseless = replace(checkpoint, config=replace(checkpoint.config, flow=flow))
    with torch.no_grad():
        checkpoint.model.dit.out.bias.add_(1.0)  # without noise, random weights are too quiet

    assert torch.equal(chunk_of(noiseless, seed=1), chunk_of(noiseless, seed=2))
    assert not torch.equal(chunk_of(checkpoint, seed=1), chunk_of(checkpoint, seed=2))


@pytest.mark.parametrize("setting", ["contrast", "formants"])
@pytest.mark.parametrize("vocoder", [True, False])
def test_contrast_and_formants_are_heard_and_zero_is_none(
    checkpoint: Checkpoint, setting: str, *, vocoder: bool
) -> None:
    if not vocoder:
        checkpoint = replace(checkpoint, vocoder=None)
    flow = replace(checkpoint.config.flow, **{setting: 0.4})
    raised = replace(checkpoint, config=replace(checkpoint.config, flow=flow))
    assert getattr(checkpoint.config.flow, setting) == 0.0
    assert chunk_of(raised).shape == chunk_of(checkpoint).shape
    assert not torch.allclose(chunk_of(raised), chunk_of(checkpoint), atol=1e-3)


def test_the_length_is_the_durations_divided_by_speed(checkpoint: Checkpoint) -> None:
    with torch.no_grad():
        checkpoint.model.durations.output.weight.zero_()
        checkpoint.model.durations.output.bias.fill_(math.log(1 + 8))  # 22 tokens of 8 frames

    for speed, frames in ((1.0, 176), (2.0, 88), (0.5, 352)):
        assert len(chunk_of(checkpoint, speed=speed)) == (frames - 1) * 256


def test_without_a_vocoder_griffin_lim_speaks(checkpoint: Checkpoint) -> None:
    bare = replace(checkpoint, vocoder=None)

    assert len(chunk_of(bare)) == len(chunk_of(checkpoint))
    assert 0.01 < chunk_of(bare).square().mean().sqrt() < 1.0


def test_weights_that_are_not_finite(checkpoint: Checkpoint) -> None:
    with torch.no_grad():
        checkpoint.model.dit.out.bias[3] = torch.nan

    with pytest.raises(SynthesisError, match=r"Chunk 0 .* non-finite.*another seed"):
        chunk_of(checkpoint)


def test_words_that_come_out_silent(checkpoint: Checkpoint) -> None:
    with torch.no_grad():
        checkpoint.model.dit.out.bias.fill_(-100.0)

    with pytest.raises(SynthesisError, match=r"words but a level of .* dBFS"):
        chunk_of(checkpoint)


def test_bands_below_the_floor_are_at_the_floor(checkpoint: Checkpoint) -> None:
    takes = []
    for depth in (-100.0, -1000.0):
        with torch.no_grad():
            checkpoint.model.dit.out.bias[60:100] = depth
            checkpoint.model.dit.out.bias[160:] = depth  # two frames make a token
        takes.append(chunk_of(checkpoint))

    assert torch.equal(*takes)


def test_words_that_come_out_far_too_loud_stay_within_one(checkpoint: Checkpoint) -> None:
    with torch.no_grad():
        checkpoint.model.dit.out.bias.fill_(3.0)

    assert 0.9 < chunk_of(checkpoint).abs().max() <= 1.0


def test_the_border_of_silence_is_minus_50_db() -> None:
    root_2 = math.sqrt(2)
    check_is_speech(sine(root_2 * 10 ** (-49 / 20)), RATE, 0)
    with pytest.raises(SynthesisError, match="-51 dBFS"):
        check_is_speech(sine(root_2 * 10 ** (-51 / 20)), RATE, 0)
    with pytest.raises(SynthesisError, match="level of -inf"):
        check_is_speech(torch.zeros(RATE), RATE, 0)
    with pytest.raises(SynthesisError, match=r"Chunk 4 .* non-finite"):
        check_is_speech(torch.tensor([0.1, torch.inf]), RATE, 4)


def test_the_limiter() -> None:
    quiet = torch.linspace(-0.9, 0.9, 7)
    assert torch.equal(limit(quiet), quiet)

    loud = torch.linspace(0.9, 50.0, 1000)
    bent = limit(loud)
    assert bent.max() <= 1.0
    assert (bent.diff() >= 0).all()
    assert torch.equal(limit(-loud), -bent)
    assert limit(torch.tensor([1.0]))[0] == pytest.approx(0.9 + 0.1 * math.tanh(1), abs=1e-6)


def test_fades_touch_the_ends_only() -> None:
    faded = fade_ends(torch.ones(100), 5)

    assert faded[:5].tolist() == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert faded[-5:].tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert (faded[5:-5] == 1).all()
    assert len(fade_ends(torch.ones(3), 5)) == 3


def test_warped_tokens_last_as_long_as_they_should() -> None:
    spoken, durations = torch.tensor([2, 0, 4, 2]), torch.tensor([1, 0, 2, 6])
    x = torch.arange(8.0)[None, :, None]
    warped = warp(x, spoken, durations)[0, :, 0]
    by_hand = [0.5, 2.5, 4.5, 17 / 3, 6.0, 19 / 3, 20 / 3, 7.0, 7.0]  # the last has no next
    assert warped.tolist() == pytest.approx(by_hand)
    assert warp(x, spoken, spoken) is x


def test_a_far_speed_is_spoken_at_the_nearest_that_people_speak(checkpoint: Checkpoint) -> None:
    voice = checkpoint.model.encode_voice(draw_noise(60, 100, 1, 0))
    part = Part([0, *range(30, 50), 1], "a" * 20, "en-us", (), 0.0)
    far, near = (
        draft_part(
            checkpoint.config, checkpoint.model, part, voice, replace(OPTIONS, speed=speed), index=0
        )
        for speed in (0.5, SLOWEST)
    )
    assert torch.equal(far.spoken, near.durations)
    assert far.durations.sum() > 1.5 * near.durations.sum()
    (x,) = flow_of(checkpoint.model, [far], voice, OPTIONS)
    assert x.shape[1] == far.durations.sum()

"""The acoustic model: sizes, what may depend on what, and batches that equal single calls."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stepflow_tts.config import Conditioning, preset
from stepflow_tts.models.acoustic import AcousticModel, VoiceContext, count_parameters
from stepflow_tts.models.conditioning import StepIndex
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS

M = 100
KINDS: tuple[Conditioning, ...] = ("time", "token", "table")


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_model(conditioning: Conditioning) -> AcousticModel:
    """Every parameter drawn anew: those that start at zero would hide what they do."""
    model = AcousticModel(preset("test"), conditioning=conditioning, num_symbols=12).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
    return model


@pytest.fixture(scope="module")
def teacher() -> AcousticModel:
    return make_model("time")


@pytest.fixture(scope="module")
def student() -> AcousticModel:
    return make_model("token")


def step_of(model: AcousticModel, times: Tensor) -> Tensor | StepIndex:
    return times if hasattr(model.step, "mlp") else StepIndex(2, 1)


TOKENS = [[0, 3, 4, 5, 1], [0, 7, 1], [0, 6, 6, 2, 1]]
DURATIONS = [[2, 3, 0, 4, 2], [1, 3, 3], [3, 1, 1, 2, 2]]  # 11, 7 and 9 frames: all odd
TIMES = torch.tensor([0.0, 0.4, 0.9])


def parameters_on_meta(name: str, conditioning: Conditioning) -> int:
    with torch.device("meta"):
        return count_parameters(
            AcousticModel(preset(name), conditioning=conditioning, num_symbols=len(DEFAULT_SYMBOLS))
        )


def test_base_has_the_paper_s_sizes() -> None:
    assert parameters_on_meta("base", "time") == pytest.approx(154e6, abs=0.5e6)
    assert parameters_on_meta("base", "token") == pytest.approx(118e6, abs=0.5e6)


def test_nano_is_small_enough_for_the_wheel() -> None:
    assert parameters_on_meta("nano", "time") <= 19e6
    assert parameters_on_meta("nano", "token") <= 16e6
    assert parameters_on_meta("nano", "table") <= 16e6


def test_token_and_table_cost_seven_vectors_and_seven_rows() -> None:
    c = preset("base")
    row = 6 * c.num_layers * c.dim
    token, table = (parameters_on_meta("base", kind) for kind in ("token", "table"))
    assert table - token == 6 * row - 7 * c.dim
    with torch.device("meta"):
        step = AcousticModel(c, conditioning="token", num_symbols=3).step
    assert count_parameters(step) == row + 7 * c.dim


def test_names_of_the_weights_are_those_that_checkpoints_hold() -> None:
    names = {
        ".".join(part for part in key.split(".") if not part.isdigit())
        for kind in KINDS
        for key in make_model(kind).state_dict()
    }
    linear = {"attention_out", "ff_in", "ff_out", "qkv"}
    affine = {f"{trunk}.blocks.{x}" for trunk in ("dit", "text") for x in linear} | {
        *("dit.mix.conv", "dit.norm", "dit.out", "dit.target_in", "dit.voice_in", "text.norm"),
        *("durations.convs", "durations.input", "durations.norms", "durations.output"),
        *("position", "step.blocks", "step.mlp", "text.style"),
        *("style.conv_1", "style.conv_2", "style.norm", "style.out", "style.score"),
    }
    assert names == {f"{name}.{x}" for name in affine for x in ("weight", "bias")} | {
        *("dit.streams", "dit.voice_conditioning.rows", "text.conditioning.rows"),
        *("null_condition", "null_style", "step.rows", "step.tokens", "text.embedding.weight"),
    }


def test_a_new_model_is_still() -> None:
    model = AcousticModel(preset("test"), conditioning="time", num_symbols=5)
    v = model.velocity(draw(1, 6, M), TIMES[:1], model.null_conditions(1, 6), model.null_voice(1))
    assert v.abs().max() == 0


def padded(rows: list[list[int]]) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(r) for r in rows], batch_first=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heard", [None, [True, False, True]], ids=["all", "one dropped"])
@torch.no_grad()
def test_a_padded_batch_equals_single_calls(kind: Conditioning, heard: list[bool] | None) -> None:
    model = make_model(kind)
    reference, x_t = draw(3, 30, M), draw(3, 11, M, seed=1)
    mask = None if heard is None else torch.tensor(heard)
    voice = model.encode_voice(reference, mask)
    token_mask = padded([[1] * len(r) for r in TOKENS]).bool()
    frame_mask = torch.arange(11) < torch.tensor([[sum(d)] for d in DURATIONS])
    encoding = model.encode_text(padded(TOKENS), voice, token_mask)
    log_durations = model.predict_durations(encoding, voice, token_mask)
    conditions = model.frame_conditions(encoding, padded(DURATIONS))
    v = model.velocity(x_t, step_of(model, TIMES), conditions, voice, frame_mask)
    assert v.shape == x_t.shape
    for i, (tokens, durations) in enumerate(zip(TOKENS, DURATIONS, strict=True)):
        n = sum(durations)
        dropped = heard is not None and not heard[i]
        own = model.null_voice(1) if dropped else model.encode_voice(reference[i : i + 1])
        alone = model.encode_text(torch.tensor([tokens]), own)
        torch.testing.assert_close(encoding[i, : len(tokens)], alone[0], rtol=0, atol=1e-5)
        predicted = model.predict_durations(alone, own)[0]
        torch.testing.assert_close(log_durations[i, : len(tokens)], predicted, rtol=0, atol=1e-5)
        own_conditions = model.frame_conditions(alone, torch.tensor([durations]))
        step = step_of(model, TIMES[i : i + 1])
        single = model.velocity(x_t[i : i + 1, :n], step, own_conditions, own)[0]
        assert single.abs().max() > 0.1
        torch.testing.assert_close(v[i, :n], single, rtol=0, atol=1e-5)


def speak(
    model: AcousticModel, voice: VoiceContext, x_t: Tensor, tokens: list[list[int]]
) -> Tensor:
    encoding = model.encode_text(torch.tensor(tokens), voice)
    conditions = model.frame_conditions(encoding, torch.full((len(tokens), len(tokens[0])), 2))
    step = step_of(model, torch.full((len(x_t),), 0.3))
    return model.velocity(x_t, step, conditions, voice)


@torch.no_grad()
def test_what_stands_in_padded_frames_means_nothing(teacher: AcousticModel) -> None:
    voice, conditions = teacher.encode_voice(draw(1, 30, M)), draw(1, 9, 32)
    mask = torch.arange(9)[None] < 5
    x_t = draw(1, 9, M)
    other = torch.where(mask[..., None], x_t, 1e3)
    a, b = (teacher.velocity(x, TIMES[:1], conditions, voice, mask)[:, :5] for x in (x_t, other))
    assert torch.equal(a, b)


@torch.no_grad()
def test_a_dropped_voice_is_not_heard_and_a_kept_one_is(teacher: AcousticModel) -> None:
    x_t, tokens = draw(2, 6, M), [[0, 3, 1], [0, 4, 1]]
    mask = torch.tensor([False, True])
    first, second = (
        speak(teacher, teacher.encode_voice(draw(2, 30, M, seed=s), mask), x_t, tokens)
        for s in (2, 3)
    )
    assert torch.equal(first[0], second[0])
    assert (first[1] - second[1]).abs().max() > 1e-2


@torch.no_grad()
def test_without_a_voice_equals_a_voice_that_is_dropped(student: AcousticModel) -> None:
    x_t, tokens = draw(1, 6, M), [[0, 3, 1]]
    dropped = student.encode_voice(draw(1, 30, M, seed=2), torch.tensor([False]))
    a, b = (speak(student, v, x_t, tokens) for v in (dropped, student.null_voice(1)))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def change(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(-1.5).add_(0.1)


def text_and_step(model: AcousticModel) -> None:
    for part in (model.text, model.durations, model.position, model.step, model.dit.target_in):
        change(part)
    with torch.no_grad():
        model.dit.streams[1] += 1.0
        model.null_condition += 1.0


def shared_trunk(model: AcousticModel) -> None:
    change(model.dit.blocks)


def voice_stream(model: AcousticModel) -> None:
    change(model.dit.voice_conditioning)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("alter", "depends"), [(text_and_step, False), (shared_trunk, True), (voice_stream, True)]
)
@torch.no_grad()
def test_keys_and_values_of_a_voice_know_nothing_of_text_and_step(
    kind: Conditioning, alter: Callable[[AcousticModel], None], depends: bool
) -> None:
    model, reference = make_model(kind), draw(1, 30, M)
    before = model.encode_voice(reference).keys_values
    alter(model)
    after = model.encode_voice(reference).keys_values
    assert before is not None
    assert after is not None
    assert len(before) == len(model.dit.blocks) == 2
    same = all(
        torch.equal(a, b)
        for x, y in zip(before, after, strict=True)
        for a, b in zip(x, y, strict=True)
    )
    assert same is not depends


@torch.no_grad()
def test_one_voice_serves_any_text_step_and_noise(student: AcousticModel) -> None:
    """Kept or computed anew for every call, and for one item or a batch: the same sound."""
    reference = draw(1, 30, M)
    kept = student.encode_voice(reference)
    copies = [t.clone() for kv in kept.keys_values or () for t in kv]
    for seed, tokens in ((1, [[0, 3, 1]]), (2, [[0, 5, 1]])):
        x_t = draw(1, 6, M, seed=seed)
        fresh = speak(student, student.encode_voice(reference), x_t, tokens)
        assert torch.equal(speak(student, kept, x_t, tokens), fresh)
    assert all(
        torch.equal(a, b)
        for a, b in zip(copies, (t for kv in kept.keys_values or () for t in kv), strict=True)
    )
    x_t, conditions = draw(3, 8, M), draw(3, 8, 32)
    together = student.velocity(x_t, StepIndex(1, 0), conditions, kept)
    for i in range(3):
        alone = student.velocity(x_t[i : i + 1], StepIndex(1, 0), conditions[i : i + 1], kept)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_step_reaches_the_velocity(teacher: AcousticModel, student: AcousticModel) -> None:
    x_t, conditions = draw(1, 6, M), draw(1, 6, 32)
    for model, steps in (
        (teacher, [torch.tensor([0.0]), torch.tensor([0.5])]),
        (student, [StepIndex(1, 0), StepIndex(2, 0), StepIndex(2, 1)]),
    ):
        out = [model.velocity(x_t, s, conditions, model.null_voice(1)) for s in steps]
        for other in out[1:]:
            assert (other - out[0]).abs().max() > 1e-3


@torch.no_grad()
def test_an_odd_last_reference_frame_is_left_out_of_the_keys(student: AcousticModel) -> None:
    reference = draw(1, 31, M)
    odd, even = (student.encode_voice(r).keys_values for r in (reference, reference[:, :30]))
    assert odd is not None
    assert even is not None
    assert odd[0].keys.shape == (1, 2, 15, 16)
    assert torch.equal(odd[1].values, even[1].values)


@torch.no_grad()
def test_frame_conditions_follow_the_durations_and_end_with_them(student: AcousticModel) -> None:
    encoding, durations = draw(1, 2, 32), torch.tensor([[1, 2]])
    single = student.frame_conditions(encoding, durations)
    batch = student.frame_conditions(encoding.expand(2, -1, -1), torch.tensor([[1, 2], [3, 2]]))
    torch.testing.assert_close(batch[0, :3], single[0])
    assert batch[0, 3:].abs().max() == 0
    assert (single[0, 1] - single[0, 2]).abs().max() > 1e-3  # two places in one token


@torch.no_grad()
def test_style_weighs_frames_and_does_not_see_their_number() -> None:
    """Of a constant sound any length gives one style, away from the padding of the convolutions."""
    model = make_model("token")
    with torch.no_grad():
        model.style.conv_1.padding = model.style.conv_2.padding = (0,)
    frame = draw(1, 1, M)
    short, long = (model.style(frame.expand(1, n, M)) for n in (41, 141))
    torch.testing.assert_close(short, long)

"""The student: its exact start from a teacher whose gates are open, and what it then learns from."""

from collections import Counter
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from stepflow_tts import flow
from stepflow_tts.config import Conditioning, preset
from stepflow_tts.errors import OptionError
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.models.conditioning import StepIndex
from stepflow_tts.synthesis import sample
from stepflow_tts.training.distill import FROZEN, DistillTask, follow, student_from, take_trunk
from stepflow_tts.training.losses import dual_supervision
from stepflow_tts.training.methods import (
    DistillConfig,
    Networks,
    consistency,
    draw_steps,
    dual,
    dual_terms,
    endpoint,
    on_path,
)
from stepflow_tts.training.trajectory_data import Trajectories, TrajectoryBatch

M, SYMBOLS = 100, 12
Variant = Literal["token", "table", "time"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_model(conditioning: Conditioning, seed: int = 1) -> AcousticModel:
    """Every parameter is drawn: adaLN-Zero's closed gates would make any start exact."""
    model = AcousticModel(preset("test"), conditioning=conditioning, num_symbols=SYMBOLS).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.15, generator=generator)
    return model


def start(teacher: AcousticModel, variant: Variant) -> AcousticModel:
    return student_from(teacher, preset("test"), conditioning=variant, num_symbols=SYMBOLS).eval()


def speak(model: AcousticModel, num_steps: int) -> Tensor:
    """The whole way: voice, text, durations given, unguided Euler steps."""
    tokens, durations = torch.tensor([[0, 3, 4, 1], [0, 7, 9, 1]]), torch.tensor([[2, 3, 4, 2]] * 2)
    with torch.no_grad():
        voice = model.encode_voice(draw(2, 30, M))
        conditions = model.frame_conditions(model.encode_text(tokens, voice), durations)
        return sample(model, draw(2, 11, M, seed=3), conditions, voice, num_steps, 0.0)


def test_a_student_begins_with_the_trunk_of_another_and_its_own_teachers_ears() -> None:
    student, teacher = start(random_model("time"), "token"), random_model("time", seed=2)
    own = start(teacher, "token")
    take_trunk(own, student)
    for key, value in own.state_dict().items():
        source = teacher if key.startswith(FROZEN) else student
        assert torch.equal(value, source.state_dict()[key]), key


@pytest.mark.parametrize("other", ["table", "time"])
def test_a_trunk_of_another_conditioning_is_refused(other: Variant) -> None:
    teacher = random_model("time")
    with pytest.raises(OptionError, match="start_student has another"):
        take_trunk(start(teacher, "token"), start(teacher, other))


@pytest.mark.parametrize(
    ("variant", "num_steps"), [("token", 1), ("table", 1), ("table", 2), ("table", 4), ("time", 4)]
)
def test_a_student_starts_as_the_unguided_euler_teacher(variant: Variant, num_steps: int) -> None:
    teacher = random_model("time")
    wanted = speak(teacher, num_steps)
    got = speak(start(teacher, variant), num_steps)
    moved = (wanted - draw(2, 11, M, seed=3)).abs().max()
    assert moved > 0.5  # the teacher does something
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_teacher_s_time_matters_so_the_start_could_have_been_wrong() -> None:
    teacher = random_model("time")
    x, conditions, voice = draw(1, 6, M), draw(1, 6, 32), teacher.null_voice(1)
    a, b = (teacher.velocity(x, torch.tensor([t]), conditions, voice) for t in (0.0, 0.25))
    assert (a - b).abs().max() > 1e-2
    # `token` has one set of rows, so at n = 2 it cannot yet equal the teacher
    assert (speak(start(teacher, "token"), 2) - speak(teacher, 2)).abs().max() > 1e-3


def test_the_teacher_is_left_as_it_was_and_shares_no_memory() -> None:
    teacher = random_model("time")
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    student = start(teacher, "table")
    with torch.no_grad():
        for p in student.parameters():
            p.add_(1.0)
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


@pytest.mark.parametrize("variant", ["token", "table"])
def test_a_student_cannot_be_a_teacher(variant: Variant) -> None:
    with pytest.raises(OptionError, match="starts from a teacher"):
        start(random_model(variant), "token")


class Fake(Trajectories):
    """Random trajectories of random lengths, no files."""

    def __init__(self) -> None:
        pass

    def batch(self, step: int) -> TrajectoryBatch:
        mask = torch.arange(9) < torch.tensor([[9], [6]])
        return TrajectoryBatch(
            states=draw(5, 2, 9, M, seed=step) * mask[..., None],
            frame_mask=mask,
            token_ids=torch.tensor([[0, 3, 4, 1], [0, 7, 1, 0]]),
            token_mask=torch.tensor([[True] * 4, [True] * 3 + [False]]),
            durations=torch.tensor([[2, 3, 2, 2], [1, 3, 2, 0]]),
            reference=draw(2, 30, M, seed=step + 100),
        )


def task_of(student: AcousticModel, **settings: Any) -> DistillTask:
    return DistillTask(student, Fake(), Fake(), DistillConfig(validation_batches=2, **settings), 5)


def losses_at(task: DistillTask, step: int) -> tuple[float, dict[str, float]]:
    (loss,) = task.losses(task.batch(step), step)
    assert loss.module == "model"
    return loss.value.item(), loss.logs


def test_steps_are_drawn_with_their_chances() -> None:
    generator = torch.Generator().manual_seed(5)
    counts = Counter(draw_steps(DistillConfig(), generator) for _ in range(4000))
    assert [counts[n] / 4000 for n in (1, 2, 4)] == pytest.approx([0.7, 0.2, 0.1], abs=0.025)


def test_the_loss_is_the_paper_s_sum_and_a_function_of_the_step() -> None:
    task = task_of(random_model("token"))
    for step in range(6):
        value, logs = losses_at(task, step)
        (endpoint,) = [v for k, v in logs.items() if k.startswith("endpoint_")]
        (velocity,) = [v for k, v in logs.items() if k.startswith("velocity_")]
        assert value == pytest.approx(0.7 * endpoint + 0.3 * velocity, rel=1e-5)
        assert losses_at(task, step) == (value, logs)


def test_at_one_step_half_of_the_velocity_losses_are_where_inference_is() -> None:
    task = task_of(random_model("token"), chance_1=1.0, chance_2=0.0, chance_4=0.0)
    same = 0
    for step in range(40):
        _, logs = losses_at(task, step)
        same += logs["endpoint_1"] == pytest.approx(logs["velocity_1"], rel=1e-6)
    assert 11 <= same <= 29


def test_tau_is_uniform_up_to_a_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """A student that gives back its input tells where on the segment it was asked."""
    taus, ks = [], Counter[int]()
    student = random_model("token")
    task = task_of(student)
    batch = task.batch(0)._replace(states=torch.arange(5.0).view(5, 1, 1, 1).expand(5, 2, 9, M))
    asked: list[Tensor] = []

    def velocity(x: Tensor, step: StepIndex, *rest: object) -> Tensor:
        asked.append(x)
        return torch.zeros_like(x) + student.null_condition.sum() * 0

    monkeypatch.setattr(student, "velocity", velocity)
    for step in range(120):
        asked.clear()
        dual_terms(student, batch, 2, DistillConfig(), torch.Generator().manual_seed(step))
        if len(asked) == 2:  # k = 0 and tau = 0: nothing was asked beside the roll-out
            taus.append(0.0)
            ks[0] += 1
            continue
        k, place = divmod(asked[2].max().item(), 2.0)
        ks[int(k)] += 1
        taus.append(place / 2)
    assert ks[0] / 120 == pytest.approx(0.5, abs=0.13)
    drawn = sorted(t for t in taus if t > 0)
    assert len(drawn) / 120 == pytest.approx(0.5, abs=0.13)
    assert max(drawn) < 0.5
    assert sum(drawn) / len(drawn) == pytest.approx(0.25, abs=0.06)


def test_a_fresh_student_of_an_exact_trajectory_has_no_endpoint_loss() -> None:
    """Trajectories of the unguided teacher at n steps are what `table` starts with."""
    teacher = random_model("time")
    student = start(teacher, "table")
    batch = Fake().batch(0)
    with torch.no_grad():
        voice = teacher.encode_voice(batch.reference)
        encoding = teacher.encode_text(batch.token_ids, voice, batch.token_mask)
        conditions = teacher.frame_conditions(encoding, batch.durations)

        def v(x: Tensor, t: float) -> Tensor:
            times = torch.full((2,), t)
            return teacher.velocity(x, times, conditions, voice, batch.frame_mask)

        states = list(flow.euler_states(v, batch.states[0], flow.time_grid(4)))
        exact = batch._replace(states=torch.stack(states))
        for seed in range(4):
            generator = torch.Generator().manual_seed(seed)
            assert dual_terms(student, exact, 4, DistillConfig(), generator)[0] < 1e-9
        assert dual_terms(student, batch, 4, DistillConfig(), generator)[0] > 0.1


def test_padding_has_no_share_in_the_loss_and_gives_no_gradient() -> None:
    student = random_model("token")
    task = task_of(student)
    batch = task.batch(0)
    wild = batch._replace(states=torch.where(batch.frame_mask[None, ..., None], batch.states, 50.0))
    (a,), (b,) = (task.losses(x, 1) for x in (batch, wild))
    assert a.value.item() == pytest.approx(b.value.item(), rel=1e-6)


@pytest.mark.parametrize("variant", ["token", "time"])
def test_the_trunk_alone_learns(variant: Variant) -> None:
    student = random_model(variant)
    task = task_of(student)
    assert list(task.modules) == ["model"]
    for step in range(8):  # every n
        (loss,) = task.losses(task.batch(step), step)
        loss.value.backward()  # type: ignore[no-untyped-call]
    for name, parameter in student.named_parameters():
        if name.startswith(FROZEN):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name
    assert {n.split(".")[0] for n, p in student.named_parameters() if p.grad is None} == {
        "style",
        "text",
        "durations",
        "null_style",
        "null_condition",
    }


def test_validation_is_the_mean_endpoint_loss_at_every_n() -> None:
    student = random_model("token")
    task = task_of(student)
    scores = task.validate(student, 0)
    assert list(scores) == [f"held_out_endpoint_{n}" for n in (1, 2, 4)]
    assert task.validate(student, 7) == scores
    expected = 0.0
    for i in range(2):
        batch = Fake().batch(i)
        with torch.no_grad():
            voice = student.encode_voice(batch.reference)
            encoding = student.encode_text(batch.token_ids, voice, batch.token_mask)
            conditions = student.frame_conditions(encoding, batch.durations)

            def f(
                x: Tensor,
                k: int,
                conditions: Tensor = conditions,
                voice: object = voice,
                mask: Tensor = batch.frame_mask,
            ) -> Tensor:
                return student.velocity(x, StepIndex(2, k), conditions, voice, mask)  # type: ignore[arg-type]

            expected += dual_supervision(f, batch.states, 2, 0, 0.0, batch.frame_mask)[0].item() / 2
    assert scores["held_out_endpoint_2"] == pytest.approx(expected, rel=1e-5)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(student: AcousticModel, value: Tensor) -> dict[str, Tensor]:
    student.zero_grad()
    value.backward()  # type: ignore[no-untyped-call]
    return {k: p.grad.clone() for k, p in student.named_parameters() if p.grad is not None}


def test_endpoint_is_dual_with_the_weights_one_and_zero_and_the_same_draws() -> None:
    networks, config = Networks(random_model("token")), DistillConfig()
    both = DistillConfig(endpoint_weight=1.0, velocity_weight=0.0)
    seen = set()
    for seed in range(8):
        batch = Fake().batch(seed)
        one, logs = endpoint(networks, batch, config, generator(seed))
        two, _ = dual(networks, batch, both, generator(seed))
        assert one.item() == pytest.approx(two.item(), rel=1e-6)
        seen |= logs.keys()
    assert {"endpoint_1", "endpoint_2"} <= seen
    assert not [name for name in seen if name.startswith("velocity")]


def test_weak_guidance_pulls_the_unconditional_velocity_alone() -> None:
    student = random_model("token")
    batch, weight = Fake().batch(0), 50.0
    always = DistillConfig(guidance_weight=weight, guidance_chance=1.0)
    with_it, logs = dual(Networks(student), batch, always, generator(1))
    without, _ = dual(Networks(student), batch, DistillConfig(), generator(1))
    assert with_it.item() == pytest.approx(without.item() + weight * logs["guidance"], rel=1e-5)
    never = DistillConfig(guidance_weight=weight, guidance_chance=0.0)
    assert dual(Networks(student), batch, never, generator(1))[0].item() == without.item()
    # the voice's keys have no part in it: what is conditional gets no gradient
    pull = dual(Networks(student), batch, always, generator(1))[0]
    pull = pull - dual(Networks(student), batch, DistillConfig(), generator(1))[0]
    found = gradients(student, pull)
    assert found["dit.target_in.weight"].abs().max() > 1e-2
    assert found["position.weight"].abs().max() < 1e-4
    assert found["dit.voice_in.weight"].abs().max() < 1e-4


def consistency_task(seed: int = 1) -> DistillTask:
    teacher = random_model("time", seed)
    config = DistillConfig(method="consistency", validation_batches=1, target_decay=0.75)
    return DistillTask(
        start(teacher, "time"), Fake(), Fake(), config, 5, teacher=teacher, cfg_strength=0.7
    )


def test_target_and_teacher_get_no_gradient_and_the_target_follows() -> None:
    task = consistency_task()
    assert list(task.modules) == ["model", "target"]
    before = {k: v.clone() for k, v in task.modules["target"].state_dict().items()}
    losses = task.losses(task.batch(0), 0)
    next(losses).value.backward()  # type: ignore[no-untyped-call]
    assert task.student.dit.target_in.weight.grad is not None
    for network in (task.networks.target, task.networks.teacher):
        assert isinstance(network, AcousticModel)
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    with torch.no_grad():
        for p in task.student.parameters():
            p.add_(1.0)
    assert next(losses, None) is None  # the update is done
    after = task.modules["target"].state_dict()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value + 0.25, msg=key)
    teacher = task.networks.teacher
    assert isinstance(teacher, AcousticModel)
    torch.testing.assert_close(teacher.state_dict(), before)


def test_a_student_that_is_the_teacher_of_a_straight_flow_is_consistent() -> None:
    """A velocity that is the same everywhere leads to one endpoint from all times."""
    teacher = random_model("time")
    with torch.no_grad():
        teacher.dit.out.weight.zero_()
    networks = Networks(start(teacher, "time"), start(teacher, "time"), teacher, 0.7)
    config = DistillConfig(method="consistency")
    batch = Fake().batch(0)
    value, logs = consistency(networks, batch, config, generator(0))
    assert value.item() < 1e-9
    assert list(logs) == ["consistency"]
    wrong = Networks(start(random_model("time", 2), "time"), networks.target, teacher, 0.7)
    assert consistency(wrong, batch, config, generator(0))[0] > 0.01


def test_places_on_the_path_by_hand() -> None:
    states = torch.tensor([0.0, 10.0, 20.0, 40.0, 80.0]).view(5, 1, 1, 1).expand(5, 4, 2, 3)
    t = torch.tensor([0.0, 0.375, 0.75, 1.0])
    assert on_path(states, t)[:, 1, 2].tolist() == [0.0, 15.0, 40.0, 80.0]


@pytest.mark.parametrize(
    ("variant", "has_teacher"), [("token", True), ("table", True), ("time", False)]
)
def test_consistency_needs_the_time_and_the_teacher(variant: Variant, has_teacher: bool) -> None:
    teacher = random_model("time")
    with pytest.raises(OptionError, match='set conditioning = "time"'):
        DistillTask(
            start(teacher, variant),
            Fake(),
            Fake(),
            DistillConfig(method="consistency"),
            0,
            teacher=teacher if has_teacher else None,
        )


def test_consistency_is_validated_at_one_step() -> None:
    task = consistency_task()
    assert list(task.validate(task.student, 0)) == ["held_out_endpoint_1"]


def test_following_by_hand() -> None:
    a, b = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        a.weight.fill_(1.0)
        b.weight.fill_(3.0)
    follow(a, b, 0.75)
    assert a.weight.item() == pytest.approx(1.5)
    assert b.weight.item() == 3.0

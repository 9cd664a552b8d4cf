"""How much the gradients of the three methods of distillation differ from batch to batch.

At fixed weights every method sees the same batches and the same draws of n. For a method with
gradients g_1 ... g_B of batches and their mean G:

    trace     tr Cov(g) = sum_i |g_i - mean|^2 / (B - 1)
    signal    |G|^2 = mean over i != j of g_i . g_j, which has no bias, as |mean|^2 would have
    relative  trace / signal, the noise of a batch's gradient against what is common to all

    python benchmarks/gradient_variance.py --config recipes/nano.toml --folder runs/nano \
        --states start runs/nano/token/state.safetensors --batches 64 \
        --output benchmarks/results/variance.json

`start` is the student before its first update. All states are of one conditioning, which is `time`
here by default, since consistency distillation needs it. Intervals: 95 %, over the batches.
"""

import argparse
import copy
import dataclasses
import json
import math
import platform
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stepflow_tts.config import Conditioning
from stepflow_tts.models.acoustic import AcousticModel
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS
from stepflow_tts.training.checkpoint import load_weights
from stepflow_tts.training.distill import DistillTask, student_from
from stepflow_tts.training.loop import step_generator
from stepflow_tts.training.methods import METHODS, Method, Networks
from stepflow_tts.training.recipe import Recipe, read_recipe
from stepflow_tts.training.recipe_files import read_tables
from stepflow_tts.training.run import load_teacher
from stepflow_tts.training.trajectory_data import Trajectories, TrajectoryBatch

RESAMPLES = 2_000
Measure = Callable[[Tensor, Tensor | None], float]
FIRST_BATCH = 1_000_000  # beyond any update of a training, so that no batch has been learnt from


def dot_products(gradients: list[Tensor]) -> Tensor:
    """(B, B) float64 products of the gradients (P,), all that the statistics need."""
    count = len(gradients)
    products = torch.empty(count, count, dtype=torch.float64)
    for i, a in enumerate(gradients):
        for j in range(i, count):
            products[i, j] = products[j, i] = torch.dot(a.double(), gradients[j].double())
    return products


def statistics(products: Tensor, chosen: Tensor | None = None) -> tuple[float, float]:
    """Trace of the covariance, and the squared norm of the mean gradient without bias.

    Args:
        products: (B, B) of `dot_products`.
        chosen: (B,) indices of a bootstrap sample; pairs of one batch with itself do not count as
            independent. None = every batch once.
    """
    if chosen is None:
        chosen = torch.arange(len(products))
    sample = products[chosen][:, chosen]
    squares = sample.diagonal()
    independent = chosen[:, None] != chosen[None]
    signal = sample[independent].mean()
    return (squares.mean() - signal).item(), signal.item()


def with_interval(
    measure: Callable[[Tensor | None], float], count: int, seed: int = 0
) -> dict[str, Any]:
    """A number and its 95 % bootstrap interval over `count` batches."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(count, (RESAMPLES, count), generator=generator)
    draws = draws[(draws != draws[:, :1]).any(dim=1)]  # a sample of one batch alone says nothing
    found = torch.tensor([measure(chosen) for chosen in draws], dtype=torch.float64)
    low, high = found.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return {"value": measure(None), "low": low, "high": high}


def summarize(products: Mapping[Method, Tensor]) -> dict[str, Any]:
    """Every method's numbers, and `dual` against the others on the same bootstrap samples."""
    count = len(next(iter(products.values())))
    result: dict[str, Any] = {}
    for name, own in products.items():
        result[name] = {
            kind: with_interval(partial(measure, own), count) for kind, measure in MEASURES.items()
        }
    for name, own in products.items():
        if name != "dual":
            result[f"dual_over_{name}"] = {
                kind: with_interval(partial(ratio, MEASURES[kind], products["dual"], own), count)
                for kind in ("trace", "relative")
            }
    return result


def trace(products: Tensor, chosen: Tensor | None) -> float:
    """Of the covariance."""
    return statistics(products, chosen)[0]


def signal(products: Tensor, chosen: Tensor | None) -> float:
    """The squared norm of the mean gradient."""
    return statistics(products, chosen)[1]


def relative(products: Tensor, chosen: Tensor | None) -> float:
    """Noise over signal; infinite where the batches are too few to see a mean."""
    noise, common = statistics(products, chosen)
    return noise / common if common > 0 else math.inf


MEASURES: dict[str, Measure] = {"trace": trace, "signal": signal, "relative": relative}


def ratio(measure: Measure, above: Tensor, below: Tensor, chosen: Tensor | None) -> float:
    """A measure of one method over that of another; not a number where one is infinite."""
    a, b = measure(above, chosen), measure(below, chosen)
    return a / b if math.isfinite(a) and math.isfinite(b) and b > 0 else math.nan


def gradient(value: Tensor, model: AcousticModel) -> Tensor:
    """(P,) gradient of a loss for all parameters that learn, one after the other."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(value, parameters, allow_unused=True)
    filled = [
        torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)
    ]
    return torch.cat([g.flatten() for g in filled]).cpu()


def measure_state(
    networks: dict[Method, Networks],
    recipe: Recipe,
    batches: list[TrajectoryBatch],
) -> dict[str, Any]:
    """The summary of all methods at one state of the student."""
    products: dict[Method, Tensor] = {}
    for method, used in networks.items():
        gradients = []
        for i, batch in enumerate(batches):
            generator = step_generator(recipe.seed, FIRST_BATCH + i)
            value, _ = METHODS[method](used, batch, recipe.distill, generator)
            gradients.append(gradient(value, used.student))
        products[method] = dot_products(gradients)
    return summarize(products)


def networks_of(
    teacher: AcousticModel, recipe: Recipe, conditioning: Conditioning, state: str
) -> dict[Method, Networks]:
    """Each method's networks at a state; consistency only where the student is told the time."""
    student = student_from(
        teacher, recipe.model, conditioning=conditioning, num_symbols=len(DEFAULT_SYMBOLS)
    ).to(recipe.device)
    target = copy.deepcopy(student)
    if state != "start":
        student.load_state_dict(load_weights(Path(state), "model"))
        target.load_state_dict(load_weights(Path(state), "ema"))  # its slow average
    config = dataclasses.replace(recipe.distill, method="dual")
    DistillTask(student, None, None, config, 0)  # type: ignore[arg-type]  # freezes what does not learn
    networks: dict[Method, Networks] = {m: Networks(student) for m in ("endpoint", "dual")}
    if conditioning == "time":
        strength = recipe.trajectories.cfg_strength
        teacher = teacher.to(recipe.device)
        networks["consistency"] = Networks(student, target.eval(), teacher, strength)
    return networks


def main(argv: list[str] | None = None) -> None:
    """Measure, and write the table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, metavar="RECIPE.toml")
    parser.add_argument("--folder", type=Path, required=True, help="of the run")
    parser.add_argument("--states", nargs="+", required=True, help="start, or state.safetensors")
    parser.add_argument("--conditioning", choices=("time", "token", "table"), default="time")
    parser.add_argument("--batches", type=int, default=64)
    parser.add_argument("--output", type=Path, required=True, metavar="variance.json")
    args = parser.parse_args(argv)
    if args.batches < 3:
        parser.error(f"--batches is {args.batches}; at least 3 are needed, and 64 are better")
    recipe = read_recipe(read_tables(args.config))
    torch.set_num_threads(recipe.threads)
    data = Trajectories(args.folder / "trajectories", recipe.data.batch_seconds, recipe.seed)
    batches = [data.batch(FIRST_BATCH + i) for i in range(args.batches)]
    teacher = load_teacher(recipe, args.folder).requires_grad_(False)
    results = {}
    for state in args.states:
        networks = networks_of(teacher, recipe, args.conditioning, state)
        results[state] = measure_state(networks, recipe, batches)
        for name, numbers in results[state].items():
            shown = "  ".join(
                f"{k} {v['value']:.4g} [{v['low']:.4g}, {v['high']:.4g}]"
                for k, v in numbers.items()
            )
            print(f"{state}  {name:<22}{shown}")
    report = {
        "command": " ".join(["python", *sys.argv]),
        "machine": {"processor": platform.machine(), "torch": torch.__version__},
        "batches": args.batches,
        "conditioning": args.conditioning,
        "states": results,
    }
    # JSON has no infinity: what could not be told is null
    text = json.dumps(json.loads(json.dumps(report), parse_constant=lambda _: None), indent=2)
    args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

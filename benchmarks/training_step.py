"""Memory and time of one update of a teacher, on a batch of noise of the size that is asked for.

python benchmarks/training_step.py --preset base --items 2 --seconds 2 --threads 1
"""

import argparse
import json
import resource
import time
from collections.abc import Sequence

import torch

from stepflow_tts.config import CheckpointConfig, FlowConfig, MelConfig, preset
from stepflow_tts.hub import build_model
from stepflow_tts.models.acoustic import count_parameters
from stepflow_tts.text.tokenizer import DEFAULT_SYMBOLS
from stepflow_tts.training.data import Batch
from stepflow_tts.training.loop import LoopConfig, Optimizers
from stepflow_tts.training.teacher import TeacherConfig, TeacherTask

TOKENS_A_SECOND = 15
REFERENCE_SECONDS = 2.75  # the mean of what recipes draw


def noise_batch(items: int, seconds: float) -> Batch:
    """Utterances of equal length, every token as long as the next."""
    mel = MelConfig()
    tokens = round(TOKENS_A_SECOND * seconds)
    durations = torch.full((items, tokens), round(seconds * mel.frame_rate / tokens))
    num_frames = int(durations[0].sum())
    return Batch(
        x1=torch.randn(items, num_frames, mel.n_mels),
        frame_mask=torch.ones(items, num_frames, dtype=torch.bool),
        band_mask=torch.ones(items, mel.n_mels, dtype=torch.bool),
        token_ids=torch.randint(len(DEFAULT_SYMBOLS), (items, tokens)),
        token_mask=torch.ones(items, tokens, dtype=torch.bool),
        durations=durations,
        reference=torch.randn(items, round(REFERENCE_SECONDS * mel.frame_rate), mel.n_mels),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--items", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--updates", type=int, default=2, help="the last one is timed")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = CheckpointConfig(DEFAULT_SYMBOLS, conditioning="time", model=preset(args.preset))
    model = build_model(config)
    task = TeacherTask(model, None, None, TeacherConfig(), FlowConfig(), 0)  # type: ignore[arg-type]
    optimizers = Optimizers(model, LoopConfig(num_updates=1))
    batch = noise_batch(args.items, args.seconds)
    seconds = busy = 0.0
    for step in range(args.updates):
        start, busy_start = time.perf_counter(), time.process_time()
        (loss,) = task.losses(batch, step)
        loss.value.backward()  # type: ignore[no-untyped-call]
        optimizers.step(1e-4)
        model.zero_grad(set_to_none=True)
        seconds, busy = time.perf_counter() - start, time.process_time() - busy_start
    report = vars(args) | {
        "parameters": count_parameters(model),
        "speech_seconds": args.items * args.seconds,
        "update_seconds": round(seconds, 2),
        "update_cpu_seconds": round(busy, 2),  # what counts where other work runs beside it
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "torch": torch.__version__,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()

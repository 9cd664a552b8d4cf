"""What an application feels that keeps a `StepFlowTTS`: many threads, long life, and closing.

    python benchmarks/embedding.py [--workers 32] [--calls 200] [--lengths 1000]

1. --workers threads make --calls calls each on one instance; every result is compared with that of the same call
   made alone, bit by bit. Every worker runs networks, so the time is that of all calls one after the other.
2. One thread makes speech of --lengths different lengths; memory is the median of calls 51 to 100, and of the
   last 50, since it goes up and down by some MB.
3. The instance is closed. What it held goes back to malloc, which keeps it for the next one: the last figure is
   after malloc was told to give it to the system.
"""

import ctypes
import gc
import itertools
import random
import statistics
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from measuring import memory_mb, options, parse, peak_memory_mb, record

from stepflow_tts import StepFlowTTS

TEXTS = ("Yes.", "No, thank you.", "It is easy to tell the depth of a well.", "Seven?", "Go on.")
LENGTHENED = (  # by a pause after the comma, which comes too early for a chunk to end there
    "No, thank you.",
    "Well, those who remember how the old market used to look on such a morning are few in number.",
    "Well, the people who remember how the old market used to look on the morning of a holiday are"
    " few in number and live far away from the city these days.",
)
LONGEST_PAUSE = 5.0  # seconds
WARM = 100  # calls after which memory should stand still


def equal_in_threads(tts: StepFlowTTS, workers: int, calls: int) -> dict[str, object]:
    """How many of the calls of many threads differ from those made alone."""
    voices = list(tts.voices)
    cases = [(text, voice) for text in TEXTS for voice in voices]
    alone = {case: tts.synthesize(*case).samples for case in cases}
    ready = threading.Barrier(workers)

    def work(worker: int) -> list[float]:
        ready.wait()
        found = []
        for i in range(calls):
            case = cases[(7 * worker + i) % len(cases)]
            samples = tts.synthesize(*case).samples
            same = len(samples) == len(alone[case])
            found.append(float(np.abs(samples - alone[case]).max()) if same else np.inf)
        return found

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        differences = np.concatenate(list(pool.map(work, range(workers))))
    return {
        "workers": workers,
        "calls": len(differences),
        "different": int((differences > 0).sum()),
        "largest_difference": float(differences.max()),
        "seconds": round(time.perf_counter() - start, 1),
    }


def memory_of_lengths(tts: StepFlowTTS, count: int) -> dict[str, object]:
    """How memory grows over speech of `count` different lengths, which come in any order."""
    frame_seconds = 1 / tts.config.mel.frame_rate
    pauses = [i * frame_seconds for i in range(round(LONGEST_PAUSE / frame_seconds))]
    random.Random(0).shuffle(pauses)
    lengths: set[int] = set()
    held: list[float] = []  # after each call, in MB
    for pause, text in itertools.product(pauses, LENGTHENED):
        lengths.add(len(tts.synthesize(text, pause_seconds={"clause": pause}).samples))
        held.append(memory_mb())
        if len(lengths) == count:
            break
    else:
        raise SystemExit(f"There are {len(lengths)} lengths only; ask for fewer.")
    if len(held) < WARM:
        raise SystemExit(f"Ask for more than {WARM} lengths.")
    warm, end = (statistics.median(held[i - WARM // 2 : i]) for i in (WARM, len(held)))
    return {
        "calls": len(held),
        "different_lengths": len(lengths),
        "longest_seconds": round(max(lengths) / tts.sample_rate, 1),
        f"after_{WARM}_calls_mb": round(warm, 1),
        "at_end_mb": round(end, 1),
        "growth_mb": round(end - warm, 1),
    }


def main() -> None:
    """Measure, print and write down."""
    parser = options(__doc__)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--lengths", type=int, default=1000)
    args = parse(parser)
    before = memory_mb()
    tts = StepFlowTTS.from_pretrained(args.model)
    loaded = memory_mb()
    lengths = memory_of_lengths(tts, args.lengths)
    threads = equal_in_threads(tts, args.workers, args.calls)
    open_mb = memory_mb()
    network = weakref.ref(tts._checkpoint.model)
    tts.close()
    gc.collect()
    closed_mb = memory_mb()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    record(
        "embedding",
        {
            "lengths": lengths,
            "threads_in_parallel": threads,
            "memory_mb": {
                "imported": round(before, 1),
                "loaded": round(loaded, 1),
                "before_close": round(open_mb, 1),
                "after_close": round(closed_mb, 1),
                "after_close_and_malloc_trim": round(memory_mb(), 1),
                "peak": round(peak_memory_mb(), 1),
            },
            "network_freed_by_close": network() is None,
        },
    )


if __name__ == "__main__":
    main()

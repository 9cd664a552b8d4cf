"""Shards by the processes of one machine, each with a model of its own."""

import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from multiprocessing.connection import Connection

from stepflow_tts.errors import SynthesisError
from stepflow_tts.jobs.job import Job
from stepflow_tts.jobs.rows import Shard
from stepflow_tts.jobs.shard import Done, ShardSpeaker

_speaker = lru_cache(maxsize=1)(ShardSpeaker)


def speak_locally(job: Job, shards: Iterable[Shard], num_processes: int) -> Iterator[Done]:
    """The shards as they are done, in any order.

    The processes end with this one, also when it is killed, and when the iterator is closed.

    Raises:
        SynthesisError: a process died.
        StepFlowError: the model cannot be loaded.
        OSError: the system could not write (no permission, full disk).
    """
    num_threads = max(1, count_cpus() // num_processes)
    # Spawned, since PyTorch can hang in a child that was forked.
    context = get_context("spawn")
    lifeline, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(num_processes, context, _prepare, (lifeline, num_threads))
    waiting = iter(shards)
    running: set[Future[Done]] = set()
    try:
        while True:
            # One more each, so that none has to wait for its next shard.
            for shard in islice(waiting, 2 * num_processes - len(running)):
                running.add(pool.submit(_speak, job, shard))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        raise SynthesisError(
            "A process that spoke has died, most often for lack of memory. Run the command again, "
            "perhaps with fewer --processes: it goes on where it was."
        ) from error
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)


def count_cpus() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _prepare(lifeline: Connection, num_threads: int) -> None:
    """Set up a process."""
    import torch

    torch.set_num_threads(min(num_threads, torch.get_num_threads()))  # fewer by OMP_NUM_THREADS
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    """End this process when nobody holds the other end any more."""
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(1)


def _speak(job: Job, shard: Shard) -> Done:
    """Runs in the process, which keeps the model."""
    return _speaker(job)(shard)

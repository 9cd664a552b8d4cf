"""Shards by a Ray cluster: a pipeline of Ray Data whose actors hold the model."""

import dataclasses
import json
import logging
import os
import pickle
from collections.abc import Iterable, Iterator

import ray
import ray.data

from stepflow_tts.errors import StepFlowError
from stepflow_tts.jobs.job import Job
from stepflow_tts.jobs.rows import Row, Shard
from stepflow_tts.jobs.shard import Done, ShardSpeaker

# Of a core that an actor keeps busy. Ray fills machines to half first, so each gets as many actors as cores; the other
# half is where it starts anew, on the machines that are left, the actors of one that was lost.
CPUS_OF_ACTOR = 0.5
ERRORS = (StepFlowError, OSError)  # that a job may meet; they travel as data


class ShardActor:
    """Holds the model on one of the machines."""

    def __init__(self, job: Job) -> None:
        """Load it. An error is kept for the first shard: Ray would blame itself and try again."""
        self._error: Exception | None = None
        try:
            self._speak = ShardSpeaker(job)
        except ERRORS as error:
            self._error = error

    def __call__(self, item: dict[str, object]) -> dict[str, object]:
        """A shard as `_item` packs it, to what `Done` holds, or to the error that ends the job."""
        rows = tuple(Row(**fields) for fields in json.loads(str(item["rows"])))
        try:
            if self._error is not None:
                raise self._error
            done = self._speak(Shard(int(str(item["number"])), rows))
        except ERRORS as error:
            return {**Done(0, 0.0)._asdict(), "error": pickle.dumps(error)}
        return {**done._asdict(), "error": b""}


def speak_on_ray(
    job: Job, shards: Iterable[Shard], address: str, max_actors: int | None
) -> Iterator[Done]:
    """The shards as they are done, in any order.

    Ray starts anew what was on a machine that it lost, while no more than half of the cores are
    lost; beyond, it waits for machines to join. A shard that was done there is not spoken again,
    since its lines are there.

    Args:
        job: its folder and its checkpoint must be seen by all machines under the same path.
        shards: kept in Ray's memory, the texts and not the audio.
        address: of a running cluster; "" takes that of the environment or of this machine, or
            starts one.
        max_actors: None for as many as there are cores now, or GPUs if the job's device is one.

    Raises:
        StepFlowError: the model cannot be loaded by an actor.
        OSError: the system could not write (no permission, full disk).
        ConnectionError: there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    ray.init(address or None, ignore_reinit_error=True, logging_level="WARNING")
    # It would tell how to turn on the progress bars that are turned off here.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    items = [_item(shard) for shard in shards]
    if not items:
        return
    on_gpu = (job.device or "cpu").startswith("cuda")
    if max_actors is None and not on_gpu:
        max_actors = max(1, int(ray.cluster_resources().get("CPU", 1)))
    done = ray.data.from_items(items, override_num_blocks=len(items)).map(
        ShardActor,
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(
            min_size=1, max_size=max_actors, max_tasks_in_flight_per_actor=2
        ),
        num_cpus=None if on_gpu else CPUS_OF_ACTOR,
        num_gpus=1 if on_gpu else None,
    )
    for row in done.iter_rows():
        if row["error"]:
            raise pickle.loads(row["error"])
        yield Done(int(row["num_rows"]), float(row["audio_seconds"]))


def _item(shard: Shard) -> dict[str, object]:
    """A shard as Ray's tables hold it."""
    rows = json.dumps([dataclasses.asdict(row) for row in shard.rows])
    return {"number": shard.number, "rows": rows}

"""One bounded queue between the event loop and the threads that synthesize.

A job is one request's speech, made part by part. Who works on which part is decided anew after each
of them: first come, first served, but a job that is well ahead of its listener lets others go first,
so that a book does not keep a sentence waiting. Batches are not formed.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Generator
from typing import NamedTuple

from stepflow_tts.server.errors import ApiError

logger = logging.getLogger(__name__)

LEAD_SECONDS = 10.0  # of speech ahead of the listener, before a job steps back
MAX_WAITING_PARTS = 8  # that a client has not taken yet, before its job rests
MAX_RETRY_SECONDS = 60


class Part(NamedTuple):
    """Some of an answer."""

    data: bytes
    seconds: float = 0.0  # of speech that was made for it


class Job:
    """One request's parts: made in a worker's thread, taken in the event loop."""

    def __init__(self, parts: Generator[Part, None, None], scheduler: "Scheduler") -> None:
        """Only `Scheduler.submit` makes jobs."""
        self.submitted = time.monotonic()
        self.is_cancelled = False
        self._parts = parts
        self._scheduler = scheduler
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Part | Exception | None] = asyncio.Queue()
        # The scheduler's lock guards these.
        self.is_running = False
        self.num_waiting = 0
        self.due = self.submitted
        self.work_seconds = 0.0
        self._spoken_until = 0.0

    async def next(self) -> Part | None:
        """The next part; None after the last, and once cancelled.

        Raises:
            Exception: whatever stopped it from being made.
        """
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        if item is not None:
            self._scheduler.taken(self)
        return item

    def cancel(self) -> None:
        """Make nothing more; what is being made just now is the last."""
        self._scheduler.cancel(self)

    def deliver(self, item: Part | Exception | None) -> None:
        """Hand something over to the event loop; from any thread."""
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    def step(self) -> bool:
        """Make a part; True if there may be more of them."""
        started = time.monotonic()
        try:
            part = next(self._parts)
        except StopIteration:
            self.deliver(None)
            return False
        except Exception as error:
            self.deliver(error)
            return False
        now = time.monotonic()
        self.work_seconds += now - started
        self._spoken_until = (self._spoken_until or now) + part.seconds
        self.due = max(self.submitted, self._spoken_until - LEAD_SECONDS)
        self.deliver(part)
        return True

    def close(self) -> None:
        """Let go of what the parts are made from."""
        self._parts.close()


class Scheduler:
    """A bounded number of jobs, and the threads that work on them."""

    def __init__(self, max_jobs: int, num_workers: int) -> None:
        """Threads start with `start`."""
        self._max_jobs = max_jobs
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._is_closing = False
        self._mean_work_seconds = 1.0
        self._workers = [
            threading.Thread(target=self._work, name=f"synthesis-{index}", daemon=True)
            for index in range(num_workers)
        ]

    def start(self) -> None:
        """Begin to work."""
        for worker in self._workers:
            worker.start()

    @property
    def num_jobs(self) -> int:
        """Those that are waiting or being worked on."""
        return len(self._jobs)

    @property
    def is_alive(self) -> bool:
        """Whether jobs are being done."""
        return not self._is_closing and all(worker.is_alive() for worker in self._workers)

    def submit(self, parts: Generator[Part, None, None]) -> Job:
        """A job that yields `parts`, a generator that is not started yet; call it in the event loop.

        Raises:
            ApiError: the queue is full (429), or the server is stopping (503).
        """
        with self._changed:
            if self._is_closing:
                raise ApiError(503, "The server is stopping. Try again soon.", code="stopping")
            if len(self._jobs) >= self._max_jobs:
                wait = self._mean_work_seconds * len(self._jobs) / len(self._workers)
                seconds = min(max(1, math.ceil(wait)), MAX_RETRY_SECONDS)
                raise ApiError(
                    429,
                    f"{self._max_jobs} requests are waiting already. Try again in {seconds} s.",
                    code="queue_full",
                    headers={"Retry-After": str(seconds)},
                )
            job = Job(parts, self)
            self._jobs.append(job)
            self._changed.notify()
        return job

    def taken(self, job: Job) -> None:
        """Tell that a part of it was taken: there is room for another."""
        with self._changed:
            job.num_waiting -= 1
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Take it out of the queue; a worker that is at it does so when its part is made."""
        with self._changed:
            if job.is_cancelled or job not in self._jobs:
                return
            job.is_cancelled = True
            if not job.is_running:
                self._drop(job)

    def close(self) -> None:
        """Stop the threads and cancel what is left; returns when the parts being made are done."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for worker in self._workers:
            if worker.ident is not None:
                worker.join()
        for job in list(self._jobs):
            self.cancel(job)

    def _work(self) -> None:
        """What a worker does all day."""
        while (job := self._take()) is not None:
            goes_on = job.step()
            with self._changed:
                job.is_running = False
                job.num_waiting += goes_on
                if not goes_on or job.is_cancelled:
                    self._drop(job)
                    self._mean_work_seconds += 0.1 * (job.work_seconds - self._mean_work_seconds)

    def _take(self) -> Job | None:
        """The job that is due first, once there is one; None when the server stops."""
        with self._changed:
            while not self._is_closing:
                ready = [
                    job
                    for job in self._jobs
                    if not job.is_running and job.num_waiting < MAX_WAITING_PARTS
                ]
                if ready:
                    job = min(ready, key=lambda job: job.due)
                    job.is_running = True
                    return job
                self._changed.wait()
        return None

    def _drop(self, job: Job) -> None:
        """Forget it; who waits for its next part learns that there is none."""
        self._jobs.remove(job)
        job.close()
        if job.is_cancelled:
            job.deliver(None)

"""Uploaded recordings to samples, without trusting a byte of them."""

import asyncio
import json
import os
import sys

import numpy as np

from stepflow_tts.audio.io import Samples
from stepflow_tts.errors import AudioError
from stepflow_tts.server.errors import ApiError

TIMEOUT_SECONDS = 15.0
MAX_PROCESSES = 2
MAX_WAITING = 8
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


class Decoder:
    """Decodes files, each in a process of its own and few at a time."""

    def __init__(self) -> None:
        """None is running."""
        self._processes = asyncio.Semaphore(MAX_PROCESSES)
        self._num_jobs = 0

    async def decode(self, data: bytes) -> tuple[Samples, int]:
        """(S,) mono samples and the sample rate of an audio file of at most 60 s.

        Raises:
            AudioError: it cannot be decoded within the limits.
            ApiError: too many are waiting (429).
        """
        if self._num_jobs >= MAX_PROCESSES + MAX_WAITING:
            raise ApiError(
                429,
                f"{MAX_WAITING} uploads are waiting already. Try again in 2 s.",
                code="queue_full",
                headers={"Retry-After": "2"},
            )
        self._num_jobs += 1
        try:
            async with self._processes:
                return await _decode(data)
        finally:
            self._num_jobs -= 1


async def _decode(data: bytes) -> tuple[Samples, int]:
    """What the process of one file tells."""
    if not data:
        raise AudioError("The recording is empty: 0 bytes. Send 3 to 8 s of clear speech.")
    environment = {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "stepflow_tts.server.decode"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=environment | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            output, _ = await process.communicate(data)
    except TimeoutError as error:
        raise AudioError(
            f"The recording took more than {TIMEOUT_SECONDS:.0f} s to decode. Send a shorter one."
        ) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise AudioError(
            "The recording broke its decoder, or took too much of its time or memory. Export it "
            "as WAV."
        )
    head, _, samples = output.partition(b"\n")
    fields = json.loads(head)
    if "error" in fields:
        raise AudioError(f"The recording {fields['error']}")
    return np.frombuffer(samples, np.float32), int(fields["sample_rate"])

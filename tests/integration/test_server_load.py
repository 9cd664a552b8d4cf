"""The queue, and clients that leave, stall or come while the server stops."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import Running, running, wait_until

from stepflow_tts import StepFlowTTS
from stepflow_tts.server.errors import ApiError
from stepflow_tts.server.scheduler import LEAD_SECONDS, MAX_WAITING_PARTS, Job, Part, Scheduler

LONG = "This is one of very many sentences, each of which takes a while to say. " * 50


def scheduled(use: Any, max_jobs: int = 4, num_workers: int = 1) -> None:
    """Run the coroutine function `use` with a scheduler that it starts itself."""

    async def main() -> None:
        scheduler = Scheduler(max_jobs, num_workers)
        try:
            await asyncio.wait_for(use(scheduler), 10)
        finally:
            await asyncio.to_thread(scheduler.close)

    asyncio.run(main())


async def parts_of(job: Job) -> list[bytes]:
    parts = []
    while (part := await job.next()) is not None:
        parts.append(part.data)
    return parts


def test_first_come_first_served_until_one_is_far_ahead() -> None:
    order: list[str] = []

    def parts(name: str, seconds: float, count: int) -> Iterator[Part]:
        for _ in range(count):
            order.append(name)
            yield Part(name.encode(), seconds)

    async def use(scheduler: Scheduler) -> None:
        book = scheduler.submit(parts("book", LEAD_SECONDS, 3))
        notes = [scheduler.submit(parts(name, 1.0, 2)) for name in "ab"]
        scheduler.start()
        assert await asyncio.gather(*map(parts_of, [book, *notes])) == [
            [b"book"] * 3,
            [b"a"] * 2,
            [b"b"] * 2,
        ]

    scheduled(use)
    assert order == ["book", "a", "a", "b", "b", "book", "book"]


def test_full_queue_is_429_and_a_cancelled_job_makes_room() -> None:
    def parts() -> Iterator[Part]:
        yield Part(b"x")

    async def use(scheduler: Scheduler) -> None:
        jobs = [scheduler.submit(parts()) for _ in range(4)]
        with pytest.raises(ApiError) as error:
            scheduler.submit(parts())
        assert error.value.status_code == 429
        assert error.value.headers is not None
        assert 1 <= int(error.value.headers["Retry-After"]) <= 60
        jobs[0].cancel()
        assert scheduler.num_jobs == 3
        last = scheduler.submit(parts())
        scheduler.start()
        assert [await parts_of(job) for job in [*jobs, last]] == [[], *[[b"x"]] * 4]
        assert scheduler.num_jobs == 0

    scheduled(use)


def test_one_job_s_failure_touches_no_other() -> None:
    def parts(fails: bool) -> Iterator[Part]:
        yield Part(b"1")
        if fails:
            raise RuntimeError("out of tune")
        yield Part(b"2")

    async def use(scheduler: Scheduler) -> None:
        jobs = [scheduler.submit(parts(fails)) for fails in (False, True, False)]
        scheduler.start()
        assert await parts_of(jobs[0]) == [b"1", b"2"]
        with pytest.raises(RuntimeError, match="out of tune"):
            await parts_of(jobs[1])
        assert await parts_of(jobs[2]) == [b"1", b"2"]
        assert scheduler.is_alive

    scheduled(use)


def test_a_job_rests_while_nobody_takes_its_parts() -> None:
    made = []

    def parts() -> Iterator[Part]:
        for number in range(3 * MAX_WAITING_PARTS):
            made.append(number)
            yield Part(b"%d" % number)

    async def use(scheduler: Scheduler) -> None:
        job = scheduler.submit(parts())
        scheduler.start()
        other = scheduler.submit(Part(b"x") for _ in range(1))
        assert await parts_of(other) == [b"x"]
        await asyncio.sleep(0.1)
        assert len(made) == MAX_WAITING_PARTS
        assert len(await parts_of(job)) == len(made) == 3 * MAX_WAITING_PARTS

    scheduled(use)


def test_a_cancelled_job_is_closed_after_its_part() -> None:
    made, closed = [], []

    def parts() -> Iterator[Part]:
        try:
            while True:
                made.append(time.sleep(0.02))
                yield Part(b"x")
        finally:
            closed.append(True)

    async def use(scheduler: Scheduler) -> None:
        scheduler.start()
        job = scheduler.submit(parts())
        await job.next()
        count = len(made)
        job.cancel()
        while await job.next() is not None:
            pass
        assert closed
        assert len(made) <= count + 1
        assert scheduler.num_jobs == 0

    scheduled(use)


def test_several_workers_share_the_jobs() -> None:
    def parts(number: int) -> Iterator[Part]:
        for part in range(5):
            time.sleep(0.001)
            yield Part(b"%d" % (10 * number + part))

    async def use(scheduler: Scheduler) -> None:
        scheduler.start()
        jobs = [scheduler.submit(parts(number)) for number in range(8)]
        answers = await asyncio.gather(*map(parts_of, jobs))
        for number, answer in enumerate(answers):
            assert answer == [b"%d" % (10 * number + part) for part in range(5)]

    scheduled(use, max_jobs=8, num_workers=3)


def test_closing_ends_what_is_left_and_takes_no_more() -> None:
    async def use(scheduler: Scheduler) -> None:
        job = scheduler.submit(Part(b"x") for _ in range(1))
        await asyncio.to_thread(scheduler.close)
        assert await job.next() is None
        with pytest.raises(ApiError) as error:
            scheduler.submit(Part(b"x") for _ in range(1))
        assert error.value.status_code == 503
        assert not scheduler.is_alive

    scheduled(use)


def begin(server: Running, text: str = LONG) -> Any:
    """A request for long speech, as raw PCM, that is under way."""
    body = {"input": text, "response_format": "pcm"}
    return server.client.stream("POST", "/v1/audio/speech", json=body)


def test_hanging_up_stops_within_a_chunk_and_a_full_server_says_when_to_come_back(
    tts: StepFlowTTS,
) -> None:
    longest = max(piece.duration_seconds for piece in tts.stream(LONG[:400]))
    with running(tts, max_jobs=1) as server:
        with begin(server) as answer:
            parts = answer.iter_bytes()  # kept: the connection is closed with it
            next(parts)
            refused = server.speech(input="Hi.")
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        spoken = server.metric("stepflow_speech_seconds_total")
        wait_until(lambda: server.metric("stepflow_queue_jobs") == 0)
        time.sleep(0.1)
        assert server.metric("stepflow_speech_seconds_total") <= spoken + longest + 0.01
        assert server.speech(input="Hi.").status_code == 200


def test_hanging_up_in_the_queue_is_seen(tts: StepFlowTTS) -> None:
    with running(tts) as server, begin(server) as answer:
        parts = answer.iter_bytes()
        next(parts)
        before = server.metric("stepflow_queue_jobs")
        with socket.create_connection(server.address) as waiting:
            body = b'{"input": "' + LONG.encode() + b'"}'
            waiting.sendall(
                b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
                b"Content-Type: application/json\r\n\r\n%b" % (len(body), body)
            )
            wait_until(lambda: server.metric("stepflow_queue_jobs") == before + 1)
        wait_until(lambda: server.metric("stepflow_queue_jobs") == before)


def test_a_client_that_stalls_is_closed(tts: StepFlowTTS) -> None:
    with running(tts, stall_seconds=0.3) as server, socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stalled.connect(server.address)
        body = b'{"response_format": "wav", "input": "' + LONG.encode() + b'"}'
        stalled.sendall(
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Content-Type: application/json\r\n\r\n%b" % (len(body), body)
        )
        wait_until(lambda: server.metric("stepflow_queue_jobs") == 1)
        wait_until(lambda: server.metric("stepflow_queue_jobs") == 0, 20)
        assert server.metric("stepflow_rtf_count") == 0  # it was not spoken to the end


def test_sigterm_finishes_what_is_under_way(checkpoint_folder: Path, tts: StepFlowTTS) -> None:
    text = LONG[:720]
    command = [sys.executable, "-m", "stepflow_tts", "serve", "--port", "0"]
    command += ["--model", str(checkpoint_folder)]
    environment = os.environ | {"STEPFLOW_TTS_TOKENS": "me:0123456789abcdef"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stderr is not None
        url = re.search(r"http://\S+", process.stderr.readline())
        assert url is not None
        body = {"input": text, "response_format": "pcm"}
        headers = {"Authorization": "Bearer 0123456789abcdef"}
        with (
            httpx.Client(base_url=url[0], headers=headers, timeout=60) as client,
            client.stream("POST", "/v1/audio/speech", json=body) as answer,
        ):
            parts = answer.iter_bytes()
            data = next(parts)
            process.send_signal(signal.SIGTERM)
            data += b"".join(parts)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url[0]}/healthz")
        assert process.wait(30) == 0
        assert process.stderr.read() == f"To try it, open {url[0]}/ in a browser.\n"
    expected = np.rint(tts.synthesize(text).samples * 32_767).astype("<i2")
    np.testing.assert_array_equal(np.frombuffer(data, "<i2"), expected)

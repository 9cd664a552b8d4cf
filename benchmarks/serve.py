"""How the server does under load: python benchmarks/serve.py [--seconds 300] [--burst-seconds 60]

Starts a server of its own. C is the sentences a second that a single client gets, one after another. Then
requests come at random times, whether or not the last ones are answered, over 64 connections: at 0.5 C, at
0.8 C, at 0.5 C beside 200 connections that trickle, and at 2 C. Every answer is compared with
that of the single client. Writes benchmarks/results/serve.json. With --keep FOLDER, 100 answers at 0.8 C are
saved as WAV, for stepflow-tts evaluate --wavs FOLDER/texts.tsv.
"""

import argparse
import asyncio
import csv
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import soundfile
from measuring import record

NUM_CLIENTS = 64
NUM_TRICKLING = 200
NUM_KEPT = 100
SENTENCES = (
    "The birch canoe slid on the smooth planks.",
    "Glue the sheet to the dark blue background.",
    "It is easy to tell the depth of a well.",
    "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.",
    "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.",
    "The hogs were fed chopped corn and garbage.",
    "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.",
)


@dataclass
class Phase:
    """What came back in one of the phases."""

    statuses: Counter[str] = field(default_factory=Counter)
    first_seconds: list[float] = field(default_factory=list)
    whole_seconds: list[float] = field(default_factory=list)
    num_wrong: int = 0
    audio_seconds: float = 0.0

    def summary(self) -> dict[str, object]:
        """Counts and percentiles."""
        told: dict[str, object] = {"statuses": dict(self.statuses), "wrong": self.num_wrong}
        told["audio_seconds"] = round(self.audio_seconds, 1)
        for name in ("first_seconds", "whole_seconds"):
            times = getattr(self, name)
            if times:
                told[name] = {f"p{p}": round(float(np.percentile(times, p)), 3) for p in (50, 95)}
        return told


@contextmanager
def started(*options: str, tokens: str = "") -> Iterator[str]:
    """The address of a server in a process of its own."""
    environment = os.environ | {"STEPFLOW_TTS_TOKENS": tokens}
    command = [sys.executable, "-m", "stepflow_tts", "serve", "--port", "0", "--rate-limit", "0"]
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = re.search(r"http://\S+", line)
        if url is None:
            raise SystemExit(line + process.stderr.read())
        try:
            yield url[0]
        finally:
            process.terminate()


def metric(url: str, name: str, headers: dict[str, str] | None = None) -> float:
    """A number of /metrics."""
    lines = httpx.get(f"{url}/metrics", headers=headers).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name))


class Load:
    """A client that asks for sentences and compares what comes."""

    def __init__(self, client: httpx.AsyncClient, seed: int = 0) -> None:
        """With the server's own voices."""
        self._client = client
        self._random = random.Random(seed)
        self._voices: list[str] = []
        self._alone: dict[tuple[str, str], bytes] = {}
        self.kept: list[tuple[str, bytes]] = []

    async def alone(self, seconds: float) -> float:
        """C: sentences a second, one after another, each combination at least once."""
        voices = (await self._client.get("/v1/audio/voices")).json()["voices"]
        self._voices = [voice["id"] for voice in voices[:2]]
        pairs = [(text, voice) for text in SENTENCES for voice in self._voices]
        count, start = 0, time.perf_counter()
        while count < len(pairs) or time.perf_counter() - start < seconds:
            pair = pairs[count % len(pairs)]
            status, _, data = await self._ask(*pair)
            assert status == 200, data
            self._alone[pair] = data
            count += 1
        return count / (time.perf_counter() - start)

    async def at(self, rate: float, seconds: float, keep: int = 0) -> Phase:
        """Answers to requests that come at `rate` a second."""
        phase = Phase()
        tasks = []
        start = time.perf_counter()
        due = 0.0
        while (due := due + self._random.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
            tasks.append(asyncio.create_task(self._count(phase, start + due, keep)))
        await asyncio.gather(*tasks)
        return phase

    async def _count(self, phase: Phase, due: float, keep: int) -> None:
        """Ask for a sentence and note what came."""
        pair = self._random.choice(SENTENCES), self._random.choice(self._voices)
        try:
            status, first, data = await self._ask(*pair)
        except httpx.HTTPError as error:
            phase.statuses[type(error).__name__] += 1
            return
        phase.statuses[str(status)] += 1
        if status != 200:
            return
        phase.first_seconds.append(first - due)
        phase.whole_seconds.append(time.perf_counter() - due)
        phase.audio_seconds += len(data) / 48_000
        phase.num_wrong += not same(data, self._alone[pair])
        if len(self.kept) < keep:
            self.kept.append((pair[0], data))

    async def _ask(self, text: str, voice: str) -> tuple[int, float, bytes]:
        """Status, time of the first bytes, and all of them."""
        body = {"input": text, "voice": voice, "response_format": "pcm"}
        async with self._client.stream("POST", "/v1/audio/speech", json=body) as answer:
            parts = answer.aiter_bytes()
            data = await anext(parts, b"")
            first = time.perf_counter()
            async for part in parts:
                data += part
            return answer.status_code, first, data


def same(one: bytes, other: bytes) -> bool:
    """Whether two answers have one length and a correlation of at least 0.99."""
    if one == other:
        return True
    a, b = (np.frombuffer(data, "<i2").astype(np.float64) for data in (one, other))
    return len(a) == len(b) and bool(np.corrcoef(a, b)[0, 1] >= 0.99)


async def trickle(url: str, until: asyncio.Event) -> None:
    """Send requests a byte a second, again and again."""
    host, _, port = url.removeprefix("http://").partition(":")
    while not until.is_set():
        try:
            _, writer = await asyncio.open_connection(host, int(port))
            for byte in (
                b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 99
            ):
                if until.is_set():
                    break
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(1)
            writer.close()
        except OSError:
            continue


async def measure(url: str, arguments: argparse.Namespace) -> dict[str, object]:
    """All of the phases."""
    limits = httpx.Limits(max_connections=NUM_CLIENTS, max_keepalive_connections=NUM_CLIENTS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:
        load = Load(client)
        c = await load.alone(arguments.alone_seconds)
        result: dict[str, object] = {"c_sentences_per_second": round(c, 3)}
        early = await load.at(0.5 * c, min(60.0, arguments.seconds))  # the first minute
        memory = metric(url, "process_resident_memory_bytes")
        result["first_minute_0.5_c"] = early.summary()
        result["0.5_c"] = (await load.at(0.5 * c, arguments.seconds)).summary()
        result["0.8_c"] = (await load.at(0.8 * c, arguments.seconds, NUM_KEPT)).summary()
        until = asyncio.Event()
        slow = [asyncio.create_task(trickle(url, until)) for _ in range(NUM_TRICKLING)]
        phase = await load.at(0.5 * c, arguments.burst_seconds)
        result[f"0.5_c_beside_{NUM_TRICKLING}_trickling"] = phase.summary()
        until.set()
        await asyncio.gather(*slow)
        result["2_c"] = (await load.at(2 * c, arguments.burst_seconds)).summary()
        grown = metric(url, "process_resident_memory_bytes") - memory
        result["memory_growth_mb"] = round(grown / 1e6, 1)
        if arguments.keep is not None:
            keep(arguments.keep, load.kept)
    return result


def keep(folder: Path, answers: list[tuple[str, bytes]]) -> None:
    """Save answers as WAV files beside their texts."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "texts.tsv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, delimiter="\t")
        for number, (text, data) in enumerate(answers):
            name = f"{number:03d}.wav"
            soundfile.write(folder / name, np.frombuffer(data, "<i2"), 24_000)
            rows.writerow((name, text))


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--burst-seconds", type=float, default=60.0)
    parser.add_argument("--alone-seconds", type=float, default=30.0)
    parser.add_argument("--model")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    with started(*(["--model", arguments.model] if arguments.model else [])) as url:
        result = asyncio.run(measure(url, arguments))
    record("serve", result)


if __name__ == "__main__":
    main()

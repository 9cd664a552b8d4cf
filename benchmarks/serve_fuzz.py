"""What strangers may send: python benchmarks/serve_fuzz.py [--uploads 10000] [--examples 200]

Starts a server of its own, uploads mutated WAV, FLAC, Ogg and MP3 files and random bytes, then lets schemathesis
try every operation. Exits with 1 when an upload is answered by anything but 200, 400 or 429, when
the server has died, or when schemathesis finds something; tells how much the server's memory grew.
"""

import argparse
import io
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import soundfile
from measuring import record
from serve import metric, started

FORMATS = ("WAV", "FLAC", "OGG", "MP3")
CHECKS = "not_a_server_error,status_code_conformance,response_schema_conformance,ignored_auth"
NUM_THREADS = 2
TOKEN = secrets.token_hex(16)
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def make_files() -> list[bytes]:
    """A second and a half of a buzz in each format, and nothing."""
    t = np.arange(36_000) / 24_000
    samples = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 10)) * 0.1
    files = [b""]
    for name in FORMATS:
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, 24_000, format=name)
        files.append(buffer.getvalue())
    return files


def mutated(files: list[bytes], seed: int) -> bytes:
    """One of the files with bytes changed, cut, repeated or inserted; or random bytes."""
    rng = np.random.default_rng(seed)
    data = bytearray(files[rng.integers(len(files))])
    if not data:
        return rng.bytes(int(rng.integers(0, 5_000)))
    for _ in range(int(rng.integers(1, 30))):
        place = int(rng.integers(min(len(data), 200 if rng.random() < 0.7 else len(data))))
        length = int(rng.integers(1, 9))
        match rng.integers(4):
            case 0:
                data[place : place + length] = rng.bytes(length)
            case 1:
                data[place : place + length] = b"\xff" * length
            case 2:
                del data[place : place + length]
            case _:
                data[place:place] = data[place : place + 100]
        if not data:
            break
    return bytes(data)


def upload(client: httpx.Client, audio: bytes) -> str:
    """The status of an upload, whose voice is then deleted."""
    answer = client.post(
        "/v1/audio/voices",
        data={"name": "fuzz", "consent": "true"},
        files={"audio_sample": ("x.wav", audio)},
    )
    if answer.status_code == 200:
        client.delete(f"/v1/audio/voices/{answer.json()['id']}")
    return str(answer.status_code)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=10_000)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    files = make_files()
    options = ["--model", arguments.model] if arguments.model else []
    with started(*options, tokens=f"fuzz:{TOKEN}") as url:
        with (
            httpx.Client(base_url=url, headers=HEADERS, timeout=60) as client,
            ThreadPoolExecutor(NUM_THREADS) as threads,
        ):

            def send(seeds: range) -> Counter[str]:
                return Counter(threads.map(lambda n: upload(client, mutated(files, n)), seeds))

            first = min(200, arguments.uploads)
            statuses = send(range(first))
            memory = metric(url, "process_resident_memory_bytes", HEADERS)
            statuses += send(range(first, arguments.uploads))
            grown = (metric(url, "process_resident_memory_bytes", HEADERS) - memory) / 1e6
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
        command += ["-H", f"Authorization: {HEADERS['Authorization']}"]
        command += ["--checks", CHECKS, "--max-examples", str(arguments.examples), "--seed", "0"]
        with tempfile.TemporaryDirectory() as folder:  # it leaves its notes where it runs
            found = subprocess.run(command, check=False, cwd=folder).returncode
        alive = httpx.get(f"{url}/readyz").status_code == 200
    record(
        "serve_fuzz",
        {
            "uploads": dict(statuses),
            "memory_growth_mb": round(grown, 1),
            "schemathesis_examples": arguments.examples,
            "schemathesis_exit_code": found,
            "alive": alive,
        },
    )
    return int(bool(found) or not alive or bool(set(statuses) - {"200", "400", "429"}))


if __name__ == "__main__":
    sys.exit(main())

"""A real server in a thread, for the tests of it."""

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import soundfile

from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.server.run import listen, make_server
from stepflow_tts.server.settings import Settings

ANNA, BEN = "anna-0123456789abcdef", "ben-0123456789abcdef"
TOKENS = {
    name: hashlib.sha256(token.encode()).digest() for name, token in (("anna", ANNA), ("ben", BEN))
}


def as_(token: str) -> dict[str, str]:
    """The header of a request with a token."""
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True)
class Running:
    """Where a server is, and a client for it."""

    url: str
    client: httpx.Client

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return "127.0.0.1", int(self.url.rpartition(":")[2])

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        """The answer to a POST below /v1."""
        return self.client.post(f"/v1{path}", **arguments)

    def speech(self, **fields: Any) -> httpx.Response:
        """The answer to a request for speech."""
        return self.post("/audio/speech", json=fields)

    def upload(self, audio: bytes, **fields: Any) -> httpx.Response:
        """The answer to a recording sent."""
        data = {"name": "Me", "consent": "true"} | fields
        return self.post("/audio/voices", data=data, files={"audio_sample": ("me.wav", audio)})

    def metric(self, name: str) -> float:
        """A number of /metrics."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


@contextmanager
def running(tts: StepFlowTTS, **options: Any) -> Iterator[Running]:
    """A server with these settings; rates are not limited unless asked for."""
    settings = Settings(**({"port": 0, "rate_per_minute": 0, "drain_seconds": 1} | options))
    sock = listen(settings)
    server = make_server(tts, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=30) as client:
            yield Running(url, client)
    finally:
        server.should_exit = True
        thread.join()


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    """Return as soon as the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def wav(samples: npt.NDArray[np.float32], sample_rate: int = 24_000, format: str = "WAV") -> bytes:
    """The bytes of an audio file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format=format)
    return buffer.getvalue()


def decoded(data: bytes, format: str) -> npt.NDArray[np.float32]:
    """(S,) samples at 24 kHz of an answer."""
    if format == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / 32_768
    if format == "aac":
        import av

        with av.open(io.BytesIO(data), format="aac") as container:
            return np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    samples, sample_rate = soundfile.read(io.BytesIO(data), dtype="float32")
    assert sample_rate == 24_000
    return samples

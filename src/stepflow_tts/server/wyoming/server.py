"""The server: it takes connections until it is told to stop."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.server.wyoming.connection import Connection
from stepflow_tts.server.wyoming.events import MAX_EVENT_BYTES
from stepflow_tts.voice import Voice

MAX_CONNECTIONS = 64
DRAIN_SECONDS = 8.0  # for requests under way when the server stops; Docker waits for 10


class WyomingServer:
    """Speaks to everybody who connects."""

    def __init__(self, tts: StepFlowTTS, voices: Mapping[str, Voice]) -> None:
        """Listen with `start`; the first voice is the default."""
        self._tts = tts
        self._voices = voices
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """The port that it listens on, which is a free one for 0.

        The event loop belongs to the server: what is done in a thread is done in one thread.

        Raises:
            OSError: the port is taken, or the host is not this machine's.
        """
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1, "synthesis"))

        def connect() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(_Reader(MAX_EVENT_BYTES, loop), self._serve, loop)

        self._server = await loop.create_server(connect, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Take no more connections, finish what is being spoken, and close them all."""
        if self._server is not None:
            self._server.close()
        speaking = [c.speaking for c in self._connections if c.speaking is not None]
        if speaking:
            await asyncio.wait(speaking, timeout=DRAIN_SECONDS)
        for connection in self._connections:
            connection.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Everything of one connection."""
        connection = Connection(self._tts, self._voices, reader, writer)
        if len(self._connections) >= MAX_CONNECTIONS:
            await connection.refuse(f"There are {MAX_CONNECTIONS} connections already.")
            return
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)


class _Reader(asyncio.StreamReader):
    """Reads no more of an event than one about speech can have."""

    async def readexactly(self, n: int) -> bytes:
        if n > MAX_EVENT_BYTES:
            raise ValueError(f"An event announces {n} bytes; {MAX_EVENT_BYTES} are allowed.")
        return await super().readexactly(n)


def serve(tts: StepFlowTTS, voices: Mapping[str, Voice], host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; at SIGTERM what is being spoken is finished first.

    Raises:
        OSError: the port is taken, or the host is not this machine's.
        SynthesisError: the model cannot speak.
    """
    tts.synthesize("Ready to speak.", next(iter(voices.values())))  # the first call is the slowest
    asyncio.run(_serve_until_told(WyomingServer(tts, voices), host, port))


async def _serve_until_told(server: WyomingServer, host: str, port: int) -> None:
    told = asyncio.Event()
    with suppress(NotImplementedError):  # Windows has no SIGTERM to wait for
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    port = await server.start(host, port)
    address = f"[{host}]" if ":" in host else host
    print(f"Wyoming on tcp://{address}:{port} (Ctrl-C stops it)", file=sys.stderr, flush=True)
    await told.wait()
    await server.stop()

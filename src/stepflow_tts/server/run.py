"""Serve until told to stop."""

import logging
import signal
import socket
import sys

import uvicorn

from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.server.app import create_app
from stepflow_tts.server.protocol import make_protocol
from stepflow_tts.server.settings import Settings

MAX_HEADER_BYTES = 16_384
KEEP_ALIVE_SECONDS = 5


def make_server(tts: StepFlowTTS, settings: Settings) -> uvicorn.Server:
    """A server that is not started yet."""
    config = uvicorn.Config(
        create_app(tts, settings),
        http=make_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        server_header=False,
        proxy_headers=False,  # a client could take any address with them
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.drain_seconds,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    return uvicorn.Server(config)


def listen(settings: Settings) -> socket.socket:
    """A socket at the host and port.

    Raises:
        OSError: the port is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=512)


def serve(tts: StepFlowTTS, settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; answers under way are finished first.

    Raises:
        OSError: the port is taken, or the host is not this machine's.
        SynthesisError: the model cannot speak.
    """
    with listen(settings) as sock:
        tts.synthesize("Ready to speak.")  # the first call is the slowest
        server = make_server(tts, settings)
        host, port = sock.getsockname()[:2]
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{port}"
        print(f"Serving on {url} (Ctrl-C stops it)", file=sys.stderr)
        print(f"To try it, open {url}/ in a browser.", file=sys.stderr, flush=True)
        if settings.voices_folder is None:
            logging.getLogger(__name__).info("Uploaded voices are kept until the server stops.")
        # uvicorn drains at SIGTERM and then raises it again, for whoever asked before: nobody did.
        signal.signal(signal.SIGTERM, lambda *_: None)
        server.run(sockets=[sock])

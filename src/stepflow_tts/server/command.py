"""The command `stepflow-tts serve`: its options, and how they become settings."""

import argparse
import importlib.util
from pathlib import Path

from stepflow_tts.errors import MissingDependencyError
from stepflow_tts.server.settings import TOKENS_VARIABLE, Settings, read_tokens

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
PIP_COMMAND = 'pip install "stepflow-tts[serve]"'


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `serve`. Tokens are none of them: every user of a machine sees command lines."""
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument(
        "--tokens",
        type=Path,
        metavar="FILE",
        help=f"name:token, one a line; or set {TOKENS_VARIABLE}",
    )
    parser.add_argument(
        "--no-auth", action="store_true", help="let everybody in, also from other machines"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="by which clients call this server, besides addresses and localhost; can be repeated",
    )
    parser.add_argument(
        "--queue", type=int, default=32, metavar="N", help="requests at a time (default: 32)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="threads that speak (default: 1)"
    )
    parser.add_argument(
        "--rate-limit",
        type=int,
        default=600,
        metavar="N",
        help="requests a minute of one client; 0 is no limit (default: 600)",
    )
    parser.add_argument(
        "--voices", type=Path, metavar="FOLDER", help="keeps uploaded voices (default: memory)"
    )
    parser.add_argument(
        "--drain", type=int, default=60, metavar="SECONDS", help="to finish when told to stop"
    )
    parser.add_argument("--model", metavar="SOURCE", help="a checkpoint's folder or its Hub id")
    parser.add_argument("--device", help="cpu, cuda or mps")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Serve until told to stop.

    Raises:
        OptionError: an option is out of its range, or open to others without tokens.
        MissingDependencyError: the extra is not installed.
        OSError: the port is taken.
    """
    settings = Settings(
        host=args.host,
        port=args.port,
        tokens=read_tokens(args.tokens),
        allow_anonymous=args.no_auth,
        allowed_hosts=tuple(args.allowed_host),
        max_jobs=args.queue,
        num_workers=args.workers,
        rate_per_minute=args.rate_limit,
        voices_folder=args.voices,
        drain_seconds=args.drain,
    )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"The server needs {', '.join(missing)}: {PIP_COMMAND}")
    from stepflow_tts.pipeline import StepFlowTTS
    from stepflow_tts.server.run import serve

    serve(StepFlowTTS.from_pretrained(args.model, device=args.device), settings)

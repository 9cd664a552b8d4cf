"""The command `stepflow-tts wyoming`: its options, and what becomes of them."""

import argparse
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stepflow_tts.errors import MissingDependencyError, OptionError
from stepflow_tts.server.settings import is_loopback

if TYPE_CHECKING:
    from stepflow_tts.pipeline import StepFlowTTS
    from stepflow_tts.voice import Voice

PIP_COMMAND = 'pip install "stepflow-tts[wyoming]"'


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `wyoming`."""
    parser.add_argument("--host", default="127.0.0.1", help="(default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=10_200, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--no-auth", action="store_true", help="let everybody in, also from other machines"
    )
    parser.add_argument(
        "--voice",
        metavar="NAME",
        help="spoken unless a client asks for another: a recording, a saved voice, or a name out of "
        "`voices`",
    )
    parser.add_argument("--model", metavar="SOURCE", help="a checkpoint's folder or its Hub id")
    parser.add_argument("--device", help="cpu, cuda or mps")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Serve until told to stop.

    Raises:
        OptionError: open to others without being told so, a port that is none, or no such voice.
        MissingDependencyError: the extra is not installed.
        OSError: the port is taken.
    """
    if not (args.no_auth or is_loopback(args.host)):
        raise OptionError(
            f"The host {args.host!r} is open to other machines, and Wyoming knows no tokens. Pass "
            "--no-auth to let everybody in who can reach it."
        )
    if not 0 <= args.port <= 65_535:
        raise OptionError(f"port is {args.port}; it must be from 0 to 65535.")
    if importlib.util.find_spec("wyoming") is None:
        raise MissingDependencyError(f"The server needs wyoming: {PIP_COMMAND}")
    from stepflow_tts.pipeline import StepFlowTTS
    from stepflow_tts.server.wyoming.server import serve

    tts = StepFlowTTS.from_pretrained(args.model, device=args.device)
    serve(tts, offered_voices(tts, args.voice), args.host, args.port)


def offered_voices(tts: "StepFlowTTS", default: str | None) -> "Mapping[str, Voice]":
    """The checkpoint's voices by name, `default` before them; a recording goes by its file's name.

    Raises:
        OptionError: there is no such voice, or none at all.
        AudioError: the recording cannot be used.
        CheckpointError: the saved voice cannot be read.
    """
    from stepflow_tts.voice import Voice

    voices = dict(tts.voices)
    if default is None:
        if not voices:
            raise OptionError("This checkpoint has no voices: pass --voice, such as a recording.")
        return voices
    path = Path(default)
    if default in voices:
        name, voice = default, voices[default]
    elif path.suffix.lower() == ".safetensors":
        name, voice = path.stem, Voice.load(path)
    elif path.suffix or path.exists():
        name, voice = path.stem, tts.encode_voice(path, name=path.stem)
    else:
        raise OptionError(
            f"There is no voice {default!r}. Choose one of: {', '.join(voices) or 'none'}; or pass "
            "the path of a recording."
        )
    return {name: voice} | {key: other for key, other in voices.items() if key != name}

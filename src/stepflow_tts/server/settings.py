"""What a server is told when it starts: where it listens, who may use it, and its limits."""

import hashlib
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stepflow_tts.errors import OptionError

TOKENS_VARIABLE = "STEPFLOW_TTS_TOKENS"
MIN_TOKEN_LENGTH = 16
_ENTRY = re.compile(r"([\w.-]{1,64}):([!-~]+)")  # a name and a token of visible ASCII


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server runs.

    Attributes:
        host: address to listen on.
        port: 0 takes a free one.
        tokens: SHA-256 of each token by the name it goes by; empty lets everybody in.
        allow_anonymous: True listens beyond this machine without any token.
        allowed_hosts: names in the Host header besides addresses and localhost.
        max_jobs: requests being spoken or waiting; the next one gets a 429.
        num_workers: threads that synthesize.
        rate_per_minute: requests a minute of one client; an upload counts as 10; 0 is no limit.
        max_voices: uploaded voices of one token.
        voices_folder: where they are kept; None keeps them in memory until the server stops.
        request_seconds: a request that is not complete after this long is closed.
        stall_seconds: a client that takes nothing of its answer for this long is closed.
        drain_seconds: what answers under way get to finish when the server is told to stop.

    Raises:
        OptionError: open to others without tokens, or a number out of its range.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    tokens: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    allow_anonymous: bool = False
    allowed_hosts: tuple[str, ...] = ()
    max_jobs: int = 32
    num_workers: int = 1
    rate_per_minute: int = 600
    max_voices: int = 100
    voices_folder: Path | None = None
    request_seconds: float = 10.0
    stall_seconds: float = 60.0
    drain_seconds: int = 60

    def __post_init__(self) -> None:
        if not (self.tokens or self.allow_anonymous or is_loopback(self.host)):
            raise OptionError(
                f"The host {self.host!r} is open to other machines, and there are no tokens. Name a "
                f"file of them with --tokens, set {TOKENS_VARIABLE}, or pass --no-auth to let "
                "everybody in."
            )
        lowest = {"port": 0, "max_jobs": 1, "num_workers": 1, "rate_per_minute": 0}
        for name, low in lowest.items():
            value = getattr(self, name)
            if value < low or (name == "port" and value > 65_535):
                raise OptionError(f"{name} is {value}; it must be {low} or more.")
        if self.voices_folder is not None and not self.voices_folder.is_dir():
            raise OptionError(f"There is no folder {self.voices_folder} for voices. Create it.")


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach an address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_tokens(path: Path | None) -> dict[str, bytes]:
    """SHA-256 of each token by its name, out of a file, or else out of STEPFLOW_TTS_TOKENS.

    A token is `name:token`, one a line; in the environment commas do as well. Lines that begin with
    # say nothing.

    Raises:
        OptionError: an unreadable file or entry, a name twice, or a token under 16 characters. None
            of its messages holds a token.
    """
    where = f"the file {path}" if path else TOKENS_VARIABLE
    try:
        text = path.read_text("utf-8") if path else os.environ.get(TOKENS_VARIABLE, "")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise OptionError(f"Cannot read the tokens in {path}: {reason}.") from error
    entries = re.split(r"[\n]" if path else r"[\n,]", text)
    tokens: dict[str, bytes] = {}
    for number, entry in enumerate((entry.strip() for entry in entries), 1):
        if not entry or entry.startswith("#"):
            continue
        found = _ENTRY.fullmatch(entry)
        if not found or len(found[2]) < MIN_TOKEN_LENGTH:
            raise OptionError(
                f"Entry {number} of {where} is not name:token with a token of at least "
                f"{MIN_TOKEN_LENGTH} characters. Make one with: python -c "
                "'import secrets; print(secrets.token_urlsafe(32))'"
            )
        if found[1] in tokens:
            raise OptionError(f"The name {found[1]!r} stands twice in {where}.")
        tokens[found[1]] = hashlib.sha256(found[2].encode("ascii")).digest()
    if path and not tokens:
        raise OptionError(f"There is no token in {where}. Write name:token into it, one a line.")
    return tokens

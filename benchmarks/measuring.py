"""What the measurements beside this file share: options, memory, ears and the record of a result."""

import argparse
import functools
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.signal import resample_poly

from stepflow_tts import Speech
from stepflow_tts.audio.io import Samples
from stepflow_tts.evaluation.run import shown
from stepflow_tts.evaluation.wer import Errors, count_errors, load_normalizer

RESULTS = Path(__file__).parent / "results"
EAR_RATE = 16_000  # of every recognizer and encoder

_DIGITS = {"oh": "0", "zero": "0", "one": "1"}  # which the normalizer leaves as words beside digits
_LETTERS = {
    "ay": "a", "bee": "b", "be": "b", "see": "c", "sea": "c", "dee": "d", "eff": "f", "gee": "g",
    "aitch": "h", "eye": "i", "jay": "j", "kay": "k", "el": "l", "ell": "l", "em": "m", "en": "n",
    "oh": "o", "0": "o", "pee": "p", "pea": "p", "cue": "q", "queue": "q", "are": "r", "ess": "s",
    "tea": "t", "tee": "t", "you": "u", "vee": "v", "ex": "x", "why": "y", "zee": "z", "zed": "z",
}  # fmt: skip


def options(doc: str) -> argparse.ArgumentParser:
    """A parser with what every measurement takes."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a checkpoint; the bundled one by default")
    parser.add_argument("--threads", type=int, help="of PyTorch; its own choice by default")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options, of which the threads are set."""
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    return args


def record(name: str, result: dict[str, object]) -> None:
    """Print a result, and write it to results/NAME.json with what it was measured by."""
    words = [shown(word) if os.path.isabs(word) else word for word in sys.argv]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    told = {
        "command": " ".join(["python", *words]),
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} x {platform.machine()}, {platform.system()}",
        "load_average": round(os.getloadavg()[0], 2),  # 1.0 = one core is busy, with this or else
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        **result,
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(told, indent=2, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def memory_mb() -> float:
    """What this process holds now, in MB of 10^6 bytes. Linux."""
    return _status("VmRSS")


def peak_memory_mb() -> float:
    """The most that this process ever held. Linux; `ru_maxrss` would begin at the parent's."""
    return _status("VmHWM")


def _status(key: str) -> float:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def for_ears(speech: Speech) -> Samples:
    """(S,) samples at 16 kHz."""
    common = np.gcd(speech.sample_rate, EAR_RATE)
    samples: Samples = resample_poly(
        speech.samples, EAR_RATE // common, speech.sample_rate // common
    ).astype(np.float32)
    return samples


@functools.cache
def normalizer() -> Callable[[str], str]:
    """Whisper's."""
    return load_normalizer()


def fewest_errors(accepted: Sequence[str], heard: str) -> Errors:
    """The errors against that spelling which is nearest to what was heard."""
    normalize = normalizer()
    found = [count_errors(normalize(text), normalize(heard)) for text in accepted]
    return min(found, key=lambda errors: errors.word_errors)


def units(text: str, *, letters: bool) -> str:
    """A text with digits, and letters that are spelled, one by one.

    Whisper writes "four four four" as "444", "4 4 4" or "4, 44", and "A B C" as "ABC" or "a bee see".
    """
    found: list[str] = []
    for word in re.findall(r"[^\W_]+(?:'[^\W_]+)*", normalizer()(text)):
        if letters:
            found += _LETTERS.get(word) or word
        elif word.isdecimal():
            found += word
        else:
            found.append(_DIGITS.get(word, word))
    return " ".join(found)

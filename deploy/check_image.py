"""Does the steps of the Dockerfile in a clean virtual environment: python deploy/check_image.py

For machines without Docker. It copies what the image would get, runs the `pip` commands, starts the server with the
image's command, asks for its health with the image's HEALTHCHECK, lets it speak, and stops it as Docker would. What
it cannot show: the base image, the user and its rights, the mounts. --pytorch names other packages of
PyTorch than the Dockerfile's, to be taken from where pip looks.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOKEN = "only-for-this-check"


def instructions(text: str) -> list[tuple[str, str]]:
    """Keyword and arguments of each line of a Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [
        (line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()
    ]


def main() -> None:
    """The whole check; an exception where it fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pytorch", help='such as "torch torchaudio"')
    arguments = parser.parse_args()
    steps = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        build(steps, folder, arguments.pytorch)
        check(steps, folder)
    print("The steps of the Dockerfile make a server that speaks.")


def build(steps: list[tuple[str, str]], folder: Path, pytorch: str | None) -> None:
    """COPY and RUN; what is not pip's is told and left out."""
    for keyword, text in steps:
        if keyword == "COPY":
            *sources, target = text.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, folder / target)
                else:
                    shutil.copy(ROOT / source, folder / target)
        elif keyword == "RUN":
            command = re.sub(r"--mount=\S+", "", text).replace("/wheels", str(folder / "wheels"))
            if pytorch is not None and "--index-url" in command:
                command = f"pip install --no-cache-dir {pytorch}"
            if not command.strip().startswith("pip "):
                print(f"Left out: {command.strip()}")
                continue
            command = f". {shlex.quote(str(folder / 'venv/bin/activate'))} && {command}"
            subprocess.run(["sh", "-ec", command], cwd=folder, check=True)


def check(steps: list[tuple[str, str]], folder: Path) -> None:
    """ENTRYPOINT, CMD and HEALTHCHECK, in an environment that knows nothing else."""
    last = dict(steps)
    environment = {"PATH": f"{folder / 'venv/bin'}:{os.environ['PATH']}", "HOME": str(folder)}
    environment |= {"STEPFLOW_TTS_TOKENS": f"check:{TOKEN}"}
    health = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    server = subprocess.Popen(
        json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"]), cwd=folder, env=environment
    )
    try:
        end = time.monotonic() + 300
        while subprocess.run(health, env=environment, check=False, capture_output=True).returncode:
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < end, "the server does not become healthy"
            time.sleep(1)
        request = urllib.request.Request(
            "http://127.0.0.1:8000/v1/audio/speech",
            json.dumps({"input": "Hello there.", "response_format": "wav"}).encode(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            audio = answer.read()
        assert audio[:4] == b"RIFF"
        print(f"Spoken: {(len(audio) - 44) / 48_000:.2f} s")
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0, "the server did not end as it should"
    finally:
        server.kill()


if __name__ == "__main__":
    main()

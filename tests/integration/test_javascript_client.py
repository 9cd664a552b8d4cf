"""OpenAI's JavaScript client drives the server. npm fetches the client; node is what Debian has."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Running, decoded

from stepflow_tts import StepFlowTTS
from stepflow_tts.server.schemas import MODEL_ALIASES

HERE = Path(__file__).parent / "javascript"
TEXT = "This is the first sentence. Another one follows it here. " * 6
MISSING = [name for name in ("node", "npm") if shutil.which(name) is None]

pytestmark = pytest.mark.skipif(
    bool(MISSING) and os.environ.get("CI") != "true",
    reason=f"there is no {' and no '.join(MISSING)} here",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program and the client it needs."""
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "speak.mjs"):
        shutil.copy(HERE / name, folder)
    command = ["npm", "install", "--prefer-offline", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=600)
    return folder


@pytest.fixture(scope="module")
def told(folder: Path, server: Running) -> dict[str, Any]:
    """What the program printed."""
    command = ["node", "speak.mjs", f"{server.url}/v1", str(folder), TEXT]
    result = subprocess.run(
        command, cwd=folder, check=False, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stderr
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


@pytest.fixture(scope="module")
def pieces(tts: StepFlowTTS) -> list[np.ndarray]:
    """The same speech without a server: (S,) int16 samples of each piece."""
    return [np.rint(p.samples * 32_767).astype(np.int16) for p in tts.stream(TEXT, "ben")]


def test_files_decode_to_the_full_length(
    told: dict[str, Any], folder: Path, pieces: list[np.ndarray]
) -> None:
    assert told["types"] == {"wav": "audio/wav", "mp3": "audio/mpeg"}
    right = np.concatenate(pieces)
    heard = decoded((folder / "whole.wav").read_bytes(), "wav")
    np.testing.assert_array_equal(np.rint(heard * 32_768), right)
    delay = len(decoded((folder / "whole.mp3").read_bytes(), "mp3")) - len(right)
    assert 0 <= delay <= 4_096  # encoders fill frames up, and start late


def test_the_body_streams(told: dict[str, Any], folder: Path, pieces: list[np.ndarray]) -> None:
    right = np.concatenate(pieces)
    np.testing.assert_array_equal(np.fromfile(folder / "streamed.pcm", "<i2"), right)
    assert sum(told["sizes"]) == 2 * len(right)
    assert told["sizes"][0] < len(right)  # bytes: less than half of all


def test_events(told: dict[str, Any], folder: Path, pieces: list[np.ndarray]) -> None:
    heard = np.fromfile(folder / "events.pcm", "<i2")
    np.testing.assert_array_equal(heard, np.concatenate(pieces))
    assert told["events"]["deltas"] == len(pieces) > 1
    (done,) = told["events"]["others"]
    assert done["type"] == "speech.audio.done"
    assert done["usage"]["input_tokens"] == len(TEXT)


def test_errors_and_models_arrive_as_the_client_knows_them(told: dict[str, Any]) -> None:
    unknown, beyond = told["errors"]
    assert unknown.pop("message").startswith("404 The model 'whisper-1' does not exist.")
    assert unknown == {
        "name": "NotFoundError",
        "status": 404,
        "code": "model_not_found",
        "param": "model",
        "type": "invalid_request_error",
    }
    assert (beyond["name"], beyond["status"], beyond["param"]) == ("BadRequestError", 400, "speed")
    assert "0.5 to 2.0" in beyond["message"]
    assert told["models"] == ["stepflow-tts", *MODEL_ALIASES]

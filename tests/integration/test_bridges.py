"""The server as apps use it that cannot be installed here: their requests, made by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from serving import ANNA, TOKENS, Running, decoded, running

from stepflow_tts import StepFlowTTS

TEXT = "This is the first sentence. Another one follows it here."
LIVEKIT = Path(__file__).parent / "livekit_speech.py"


def test_open_webui_lists_voices_and_models_and_gets_an_mp3(
    server: Running, tts: StepFlowTTS
) -> None:
    # It asks for lists without a key, and for models at two addresses, the first of which nobody has.
    voices = server.client.get("/v1/audio/voices").json()
    assert {voice["id"]: voice["name"] for voice in voices["voices"]} == {
        "anna": "Anna",
        "ben": "Ben",
    }
    assert server.client.get("/v1/audio/models").status_code == 404
    models = server.client.get("/v1/models").json()
    assert "stepflow-tts" in [model["id"] for model in models["data"]]
    # The page sends input and voice; the app adds its model, its parameters and who asks.
    answer = server.post(
        "/audio/speech",
        json={"input": TEXT, "voice": "anna", "model": "tts-1", "speed": 1.2},
        headers={"Authorization": "Bearer none", "X-OpenWebUI-User-Name": "Me"},
    )
    assert answer.headers["content-type"] == "audio/mpeg"
    expected = tts.synthesize(TEXT, "anna", speed=1.2).samples
    assert 0 <= len(decoded(answer.content, "mp3")) - len(expected) <= 4_096


def test_open_webui_falls_back_to_names_that_are_aliases(tts: StepFlowTTS) -> None:
    with running(tts, tokens=TOKENS) as server:
        assert server.client.get("/v1/audio/voices").status_code == 401
        for name in ("alloy", "echo", "fable", "onyx", "nova", "shimmer"):
            answer = server.post(
                "/audio/speech",
                json={"input": "Hi.", "voice": name, "model": "tts-1"},
                headers={"Authorization": f"Bearer {ANNA}"},
            )
            assert answer.status_code == 200


def test_sillytavern(server: Running, tts: StepFlowTTS) -> None:
    answer = server.post(
        "/audio/speech",
        json={
            "input": TEXT,
            "voice": "ben",
            "response_format": "mp3",
            "speed": 1,
            "model": "stepflow-tts",
        },
        headers={"Authorization": "Bearer"},  # when there is no key
    )
    expected = tts.synthesize(TEXT, "ben").samples
    assert 0 <= len(decoded(answer.content, "mp3")) - len(expected) <= 4_096


@pytest.fixture(scope="module")
def livekit_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the plugin, which wants another version of OpenAI's client than we have."""
    venv = tmp_path_factory.mktemp("livekit") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    packages = ["livekit-agents", "livekit-plugins-openai"]
    subprocess.run([venv / "bin" / "pip", "install", "--quiet", *packages], check=True)
    return venv / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("model", ["stepflow-tts", "tts-1"])  # events, and bytes
def test_livekit_s_plugin(
    server: Running, tts: StepFlowTTS, tmp_path: Path, livekit_python: Path, model: str
) -> None:
    output = tmp_path / "livekit.wav"
    command = [livekit_python, LIVEKIT, f"{server.url}/v1", model, "ben", TEXT, output]
    subprocess.run(command, check=True, timeout=600)
    heard, sample_rate = soundfile.read(output, dtype="int16")
    assert sample_rate == 24_000
    expected = np.rint(tts.synthesize(TEXT, "ben").samples * 32_767).astype(np.int16)
    np.testing.assert_array_equal(heard[: len(expected)], expected)
    assert not heard[len(expected) :].any()  # the plugin adds 10 ms of silence

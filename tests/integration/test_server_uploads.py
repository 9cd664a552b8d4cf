"""What uploads can do: whose they are, what is in them, where they are kept."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import ANNA, BEN, TOKENS, Running, as_, running, wav

from stepflow_tts import StepFlowTTS
from stepflow_tts.server.errors import ApiError
from stepflow_tts.server.voices import VoiceStore


def test_voices_belong_to_the_token_that_made_them(
    tts: StepFlowTTS, tmp_path: Path, voice_audio: Any
) -> None:
    options = {"tokens": TOKENS, "voices_folder": tmp_path}
    name = "../../<script>"
    with running(tts, **options) as server:
        server.client.headers.update(as_(ANNA))
        voice = server.upload(wav(voice_audio()), name=name).json()
        assert voice["name"] == name
        (stored,) = (path for path in tmp_path.rglob("*") if path.is_file())
        assert stored.stem == voice["id"]
        assert len(stored.relative_to(tmp_path).parts) == 2
        assert "anna" not in str(stored.relative_to(tmp_path))
    with running(tts, **options) as server:  # kept over a restart
        speak = {"input": "Hi.", "voice": voice["id"]}
        for token, is_own in ((BEN, False), (ANNA, True)):
            server.client.headers.update(as_(token))
            listed = server.client.get("/v1/audio/voices").json()["voices"]
            assert (voice["id"] in [known["id"] for known in listed]) == is_own
            assert server.speech(**speak).status_code == (200 if is_own else 400)
            gone = server.client.delete(f"/v1/audio/voices/{voice['id']}")
            assert gone.status_code == (200 if is_own else 404)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_number_of_uploads_is_bounded(tts: StepFlowTTS) -> None:
    store = VoiceStore(tts.voices, None, max_uploads=2)
    voice = tts.voices["anna"]
    first = store.add("me", voice)
    store.add("me", voice)
    with pytest.raises(ApiError, match="Delete one"):
        store.add("me", voice)
    store.add("you", voice)
    store.remove("me", first.id)
    store.add("me", voice)


def test_paths_in_any_field_open_nothing(server: Running, tmp_path: Path, voice_audio: Any) -> None:
    recording = tmp_path / "me.wav"
    recording.write_bytes(wav(voice_audio()))
    for path in (str(recording), "../../../etc/passwd", f"file://{recording}", "..%2f..%2fx"):
        for fields in (
            {"voice": path},
            {"voice": {"id": path}},
            {"model": path},
            {"language": path[:20]},
        ):
            answer = server.speech(input="Hi.", **fields)
            assert answer.status_code in (400, 404)
            assert "No such file" not in answer.text
        answer = server.client.delete(f"/v1/audio/voices/{path}")
        assert answer.status_code in (404, 405)
        assert server.client.get(f"/static/{path}").status_code == 404
    assert recording.exists()


@pytest.mark.parametrize(
    ("audio", "told"),
    [
        (b"", "empty"),
        (b"This is no sound. " * 100, "WAV"),
        (wav(np.zeros(0, np.float32)), "no samples"),
        (wav(np.zeros(48_000, np.float32)), "silent"),
        (wav(np.full(48_000, np.nan, np.float32), format="AIFF"), "recording"),
        (wav(np.zeros((24_000, 9), np.float32)), "9 channels"),
        (wav(np.zeros(8_000, np.float32), 4_000), "8000"),
        (wav(np.zeros(24_000 * 600, np.float32), format="FLAC"), "60 s"),
        (wav(np.ones(24_000 * 2, np.float32))[:44], "recording"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f" + b"\xff" * 100, "WAV"),
    ],
)
def test_bad_recordings_are_400(server: Running, audio: bytes, told: str) -> None:
    answer = server.upload(audio)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "audio_sample"
    assert told.lower() in error["message"].lower()
    assert "array" not in error["message"]


def test_mutated_recordings_break_nothing(server: Running, voice_audio: Any) -> None:
    rng = np.random.default_rng(0)
    samples = voice_audio(seconds=1.5)
    for format in ("WAV", "FLAC", "OGG", "MP3"):
        for _ in range(2):
            data = np.frombuffer(wav(samples, format=format), np.uint8).copy()
            places = rng.integers(0, min(len(data), 2_000), 20)
            data[places] = rng.integers(0, 256, 20)
            assert server.upload(data.tobytes()).status_code in (200, 400)
    assert server.client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    "attempt",
    [
        "bytearray(2 << 30)",
        "open('written', 'wb', buffering=0).write(b'x')",
        "while True: pass",
    ],
)
def test_decoder_is_limited(attempt: str, tmp_path: Path) -> None:
    code = f"""
import stepflow_tts.server.decode as decode
decode.CPU_SECONDS = 1
decode.limit_resources()
{attempt}
"""
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, check=False, capture_output=True, cwd=tmp_path).returncode != 0


def test_decoder_that_is_killed_is_a_400(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepflow_tts.server.uploads.TIMEOUT_SECONDS", 0.01)
    answer = server.upload(b"RIFF" * 1_000)
    assert answer.status_code == 400
    assert "decode" in answer.json()["error"]["message"]


def test_failures_tell_no_paths(tts: StepFlowTTS, tmp_path: Path, voice_audio: Any) -> None:
    folder = tmp_path / "voices"
    folder.mkdir()
    with running(tts, voices_folder=folder) as server:
        folder.rmdir()
        answer = server.upload(wav(voice_audio()))
        assert answer.status_code == 500
        assert list(answer.json()["error"]) == ["message", "type", "param", "code"]
        assert str(tmp_path) not in answer.text
        assert "Traceback" not in answer.text
        assert "content-security-policy" in answer.headers

"""Who may use the server, and what strangers can do to it."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from serving import Running, running, wav
from starlette.datastructures import Headers

from stepflow_tts import StepFlowTTS
from stepflow_tts.cli import main
from stepflow_tts.errors import OptionError
from stepflow_tts.server.errors import ApiError
from stepflow_tts.server.gate import (
    MAX_JSON_BYTES,
    MAX_UPLOAD_BYTES,
    RateLimiter,
    check_host,
    check_origin,
    check_token,
)
from stepflow_tts.server.settings import Settings, read_tokens
from stepflow_tts.server.voices import VoiceStore

ANNA, BEN = "anna-0123456789abcdef", "ben-0123456789abcdef"


@pytest.fixture(scope="module")
def tts(checkpoint_folder: Path) -> StepFlowTTS:
    return StepFlowTTS.from_pretrained(checkpoint_folder)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    path.write_text(f"# who: what\nanna:{ANNA}\n\nben:{BEN}\n")
    return path


@pytest.fixture(scope="module")
def server(tts: StepFlowTTS) -> Iterator[Running]:
    with running(tts) as server:
        yield server


def as_(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_everything_but_health_and_page_needs_a_token(tts: StepFlowTTS, tokens: Path) -> None:
    with running(tts, tokens=read_tokens(tokens), request_seconds=5) as server:
        for path in ("/healthz", "/readyz", "/openapi.json", "/"):
            assert server.client.get(path).status_code == 200
        for path in ("/v1/models", "/v1/audio/voices", "/metrics", "/v1/%61udio/voices", "/nope"):
            for headers in (
                {},
                as_("wrong"),
                {"Authorization": "Bearer"},
                {"Authorization": f"Basic {ANNA}"},
            ):
                answer = server.client.get(path, headers=headers)
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
        assert server.speech(input="Hi.").status_code == 401
        assert server.client.get("/v1/models", headers=as_(BEN)).status_code == 200


def test_voices_belong_to_the_token_that_made_them(
    tts: StepFlowTTS, tokens: Path, tmp_path: Path, voice_audio: Any
) -> None:
    options = {"tokens": read_tokens(tokens), "voices_folder": tmp_path}
    name = "../../etc/passwd\u2028<script>"[:16]
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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no token"),
        ("anna", "Entry 1"),
        ("anna:0123456789", "16 characters"),
        (f"anna:{ANNA}\nben {BEN}", "Entry 2"),
        (f"anna:{ANNA}\nanna:{BEN}", "twice"),
        (f"anna:{ANNA}é", "Entry 1"),
    ],
)
def test_bad_token_files_are_refused_without_telling_a_token(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=told) as error:
        read_tokens(path)
    assert "0123456789" not in str(error.value)


def test_tokens_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPFLOW_TTS_TOKENS", raising=False)
    assert read_tokens(None) == {}
    monkeypatch.setenv("STEPFLOW_TTS_TOKENS", f"anna:{ANNA}, ben:{BEN}")
    tokens = read_tokens(None)
    assert check_token(f"Bearer {BEN}", tokens) == "ben"
    assert BEN not in repr(Settings(tokens=tokens))
    with pytest.raises(ApiError):
        check_token(f"Bearer {BEN[:-1]}", tokens)


def test_open_to_others_needs_tokens_or_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    assert "--no-auth" in capsys.readouterr().err
    assert Settings(host="0.0.0.0", allow_anonymous=True).tokens == {}
    assert Settings(host="::1").host == "::1"


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("localhost:8000", True),
        ("127.0.0.1", True),
        ("[::1]:8000", True),
        ("192.168.1.5:8000", True),
        ("tts.example:443", True),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[", False),
        ("", False),
    ],
)
def test_host_header(host: str, is_allowed: bool) -> None:
    if is_allowed:
        check_host(host, ("tts.example",))
    else:
        with pytest.raises(ApiError, match="Host"):
            check_host(host, ("tts.example",))


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({}, True),
        ({"origin": "http://localhost:8000"}, True),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://localhost:9000"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://["}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
    ],
)
def test_origin(headers: dict[str, str], is_allowed: bool) -> None:
    sent = Headers({"host": "localhost:8000"} | headers)
    if is_allowed:
        check_origin(sent)
    else:
        with pytest.raises(ApiError) as error:
            check_origin(sent)
        assert error.value.status_code == 403


def test_other_sites_get_nothing(server: Running) -> None:
    evil = {"Origin": "https://evil.example"}
    assert server.post("/audio/speech", json={"input": "Hi."}, headers=evil).status_code == 403
    assert server.client.delete("/v1/audio/voices/x", headers=evil).status_code == 403
    assert server.client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400
    asked = evil | {"Access-Control-Request-Method": "POST"}
    for answer in (
        server.client.options("/v1/audio/speech", headers=asked),
        server.client.get("/v1/models", headers=evil),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_every_answer_has_the_security_headers(server: Running) -> None:
    answers = [
        server.client.get("/"),
        server.client.get("/nope"),
        server.speech(input="Hi."),
        server.client.get("/healthz", headers={"Host": "evil.example"}),
    ]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"].startswith("req_")
        assert "server" not in answer.headers
    assert answers[0].status_code == 200
    assert answers[0].headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/audio/speech", {"content-type": "text/plain"}, 415),
        ("/audio/speech", {}, 415),
        ("/audio/speech", {"content-type": "application/json; charset=utf-16"}, 415),
        ("/audio/speech", {"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ("/audio/voices", {"content-type": "application/json"}, 415),
        ("/audio/voices", {"content-type": "multipart/form-data"}, 400),
    ],
)
def test_content_types(server: Running, path: str, headers: dict[str, str], status: int) -> None:
    answer = server.post(path, content=b'{"input": "Hi."}', headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize(
    ("path", "kind", "limit"),
    [
        ("/audio/speech", "application/json", MAX_JSON_BYTES),
        ("/audio/voices", "multipart/form-data; boundary=x", MAX_UPLOAD_BYTES),
    ],
)
def test_oversized_bodies(
    server: Running, path: str, kind: str, limit: int, is_chunked: bool
) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="audio_sample"; filename="x"\r\n\r\n'
    body = (head if "x" in kind[-1] else b'{"input": "') + b"a" * limit
    content = (body[i : i + 65_536] for i in range(0, len(body), 65_536)) if is_chunked else body
    answer = server.post(path, content=content, headers={"content-type": kind})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


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


def test_rate_of_a_client() -> None:
    limiter = RateLimiter(per_minute=60)
    for _ in range(60):
        limiter.check("anna", 1, now=0.0)
    with pytest.raises(ApiError) as error:
        limiter.check("anna", 1, now=0.0)
    assert error.value.status_code == 429
    assert error.value.headers == {"Retry-After": "2"}
    limiter.check("ben", 60, now=0.0)
    limiter.check("anna", 1, now=1.0)
    with pytest.raises(ApiError):
        limiter.check("anna", 10, now=2.0)
    limiter.check("anna", 10, now=12.0)


def test_rate_limit_of_the_server(tts: StepFlowTTS) -> None:
    with running(tts, rate_per_minute=20) as server:
        statuses = [server.client.get("/v1/models").status_code for _ in range(25)]
        assert statuses == [200] * 20 + [429] * 5
        assert server.client.get("/healthz").status_code == 200


def test_trickling_requests_are_closed_and_slow_nobody(tts: StepFlowTTS) -> None:
    begun = (b"GET /healthz HT", b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\n")
    body = begun[1] + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with running(tts, request_seconds=1.0) as server:
        trickling = [socket.create_connection(server.address) for _ in range(60)]
        try:
            for number, connection in enumerate(trickling):
                connection.sendall((*begun, body)[number % 3])
            start = time.monotonic()
            assert server.client.get("/healthz").status_code == 200
            assert time.monotonic() - start < 1.0
            for connection in trickling:
                connection.settimeout(10)
                try:
                    while connection.recv(1_000):
                        pass
                except ConnectionResetError:
                    pass
            assert time.monotonic() - start < 5.0
        finally:
            for connection in trickling:
                connection.close()
        assert server.client.get("/healthz").status_code == 200


def test_what_is_no_http_gets_an_error_in_json(server: Running) -> None:
    with socket.create_connection(server.address) as connection:
        connection.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4_096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b'"type": "invalid_request_error", "param": null, "code": null}}')


def test_the_description_holds(tts: StepFlowTTS, tokens: Path) -> None:
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        ignored_auth,
        response_schema_conformance,
        status_code_conformance,
    )

    checks = [
        not_a_server_error,
        status_code_conformance,
        response_schema_conformance,
        ignored_auth,
    ]
    with running(tts, tokens=read_tokens(tokens)) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        seen = []
        for result in schema.get_all_operations():
            operation = result.ok()
            seen.append(f"{operation.method.upper()} {operation.path}")

            @given(case=operation.as_strategy())
            @settings(
                max_examples=3,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def check(case: schemathesis.Case) -> None:
                case.call_and_validate(headers=as_(ANNA), checks=checks)

            check()
    assert {"POST /v1/audio/speech", "POST /v1/audio/voices", "GET /readyz"} <= set(seen)
    assert len(seen) == 9

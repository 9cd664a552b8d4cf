"""Who may use the server, and what strangers can do to it."""

import socket
import time
from pathlib import Path

import pytest
import schemathesis
from serving import ANNA, BEN, TOKENS, Running, as_, running
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


def test_everything_but_health_and_page_needs_a_token(tts: StepFlowTTS) -> None:
    with running(tts, tokens=TOKENS, request_seconds=5) as server:
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


def test_tokens_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# who: what\nanna:{ANNA}\n\n ben:{BEN} \n")
    assert read_tokens(path) == TOKENS


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


def test_the_description_holds(tts: StepFlowTTS) -> None:
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
    with running(tts, tokens=TOKENS) as server:
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
        for path in ("/v1/audio/speech", "/v1/audio/timestamps"):
            case = schema[path]["POST"].Case(
                body={"input": "Yes.", "stream_format": "sse"}, media_type="application/json"
            )
            answer = case.call_and_validate(headers=as_(ANNA), checks=checks)
            assert answer.status_code == 200
    assert {"POST /v1/audio/speech", "POST /v1/audio/voices", "GET /readyz"} <= set(seen)
    assert len(seen) == 9

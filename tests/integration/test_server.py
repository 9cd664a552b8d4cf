"""The server as OpenAI's clients use it."""

import asyncio
import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from serving import Running, decoded, running, wait_until, wav

from stepflow_tts import StepFlowTTS
from stepflow_tts.server.schemas import MODEL_ALIASES

TEXT = "This is the first sentence. Another follows. Then comes a third.\nThe last stands alone."
LONG = "This is one of very many sentences, each of which takes a while to say. " * 7
FORMATS = ("mp3", "opus", "aac", "flac", "wav", "pcm")
NO_KEY = "none-is-needed"


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=NO_KEY, max_retries=0) as client:
        yield client


def samples_of(tts: StepFlowTTS, text: str = TEXT, voice: str = "anna") -> np.ndarray:
    return np.rint(tts.synthesize(text, voice).samples * 32_767).astype(np.int16)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_decodes_to_the_full_length(
    client: openai.OpenAI, tts: StepFlowTTS, format: Any
) -> None:
    if format == "aac":
        pytest.importorskip("av")
    answer = client.audio.speech.create(
        model="tts-1", voice="anna", input=TEXT, response_format=format
    )
    heard, spoken = decoded(answer.content, format), tts.synthesize(TEXT, "anna").samples
    if format in ("wav", "pcm", "flac"):
        # FLAC rounds in a way of its own.
        np.testing.assert_allclose(np.rint(heard * 32_768), samples_of(tts), atol=format == "flac")
    else:
        delay = len(heard) - len(spoken)
        assert 0 <= delay <= 4_096  # encoders fill frames up, and start late
        second = spoken[:24_000]
        shifted = (heard[start : start + 24_000] for start in range(delay + 1))
        assert max(np.corrcoef(second, part)[0, 1] for part in shifted) > 0.9


def test_default_is_mp3_and_streams_begin_before_the_end(
    client: openai.OpenAI, server: Running
) -> None:
    before = server.metric("stepflow_speech_seconds_total")
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=LONG
    ) as answer:
        assert answer.headers["content-type"] == "audio/mpeg"
        parts = answer.iter_bytes()
        first = next(parts)
        spoken = server.metric("stepflow_speech_seconds_total") - before
        data = first + b"".join(parts)
    seconds = len(decoded(data, "mp3")) / 24_000
    assert seconds > 20
    assert spoken < seconds / 2


def test_async_client_and_many_at_once(server: Running, tts: StepFlowTTS) -> None:
    texts = [f"This is sentence number {n}." for n in range(8)]

    async def ask(client: openai.AsyncOpenAI, text: str, voice: str) -> bytes:
        async with client.audio.speech.with_streaming_response.create(
            model="gpt-4o-mini-tts", voice=voice, input=text, response_format="pcm"
        ) as answer:
            return b"".join([data async for data in answer.iter_bytes()])

    async def ask_all() -> list[bytes]:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=NO_KEY) as client:
            return await asyncio.gather(
                *(ask(client, text, ("anna", "ben")[n % 2]) for n, text in enumerate(texts))
            )

    for n, data in enumerate(asyncio.run(ask_all())):
        expected = samples_of(tts, texts[n], ("anna", "ben")[n % 2])
        np.testing.assert_array_equal(np.frombuffer(data, "<i2"), expected)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.split("\n\n")
    assert blocks.pop() == ""
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def test_server_sent_events(server: Running, tts: StepFlowTTS) -> None:
    answer = server.speech(input=TEXT, voice="anna", response_format="pcm", stream_format="sse")
    *deltas, done = events(answer)
    assert len(deltas) == len(list(tts.stream(TEXT, "anna"))) > 1
    assert all(list(event) == ["type", "audio"] for event in deltas)
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    audio = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    np.testing.assert_array_equal(np.frombuffer(audio, "<i2"), samples_of(tts))
    assert done["type"] == "speech.audio.done"
    usage = done["usage"]
    assert usage["input_tokens"] == len(TEXT)
    assert usage["output_tokens"] == pytest.approx(len(audio) / 2 / 256, abs=1)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_timestamps(server: Running, tts: StepFlowTTS) -> None:
    fields = {"input": TEXT, "voice": "anna", "response_format": "wav"}
    whole = server.post("/audio/timestamps", json=fields).json()
    heard = decoded(base64.b64decode(whole["audio"]), "wav")
    np.testing.assert_array_equal(np.rint(heard * 32_768), samples_of(tts))
    expected = tts.synthesize(TEXT, "anna").words
    assert [word["text"] for word in whole["words"]] == TEXT.split()
    for word, right in zip(whole["words"], expected, strict=True):
        assert word["start_seconds"] == pytest.approx(right.start_seconds, abs=1e-3)
        assert word["end_seconds"] == pytest.approx(right.end_seconds, abs=1e-3)
    assert whole["duration_seconds"] == pytest.approx(len(heard) / 24_000)
    streamed = events(server.post("/audio/timestamps", json=fields | {"stream_format": "sse"}))
    assert [word for event in streamed[:-1] for word in event["words"]] == whole["words"]
    assert whole["srt"] == streamed[-1]["srt"] == tts.synthesize(TEXT, "anna").to_srt()
    assert {event["sample_rate"] for event in streamed[:-1]} == {24_000}
    assert all(0 < event["synthesis_seconds"] < 10 for event in streamed[:-1])


def test_models_and_their_aliases(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["stepflow-tts", *MODEL_ALIASES]
    assert {"tts-1", "tts-1-hd", "gpt-4o-mini-tts"} <= set(names)
    assert client.models.retrieve("tts-1").id == "tts-1"
    with pytest.raises(openai.NotFoundError) as error:
        client.audio.speech.create(model="whisper-1", voice="alloy", input="Hi.")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


def test_voices_by_name_id_and_alias(server: Running, tts: StepFlowTTS) -> None:
    voices = server.client.get("/v1/audio/voices").json()["voices"]
    assert [(voice["id"], voice["name"]) for voice in voices] == [("anna", "Anna"), ("ben", "Ben")]
    said = {
        json.dumps(voice): server.speech(input="Hi.", voice=voice, response_format="pcm").content
        for voice in ("anna", "ben", {"id": "ben"}, "alloy", "ash", None)
    }
    anna, ben = (samples_of(tts, "Hi.", name).tobytes() for name in ("anna", "ben"))
    assert list(said.values()) == [anna, ben, ben, anna, ben, anna]


def test_instructions_are_ignored_and_that_is_told(server: Running) -> None:
    answer = server.speech(input="Hi.", instructions="Whisper.", response_format="pcm")
    assert answer.headers["x-stepflow-ignored"] == "instructions"
    plain = server.speech(input="Hi.", response_format="pcm")
    assert "x-stepflow-ignored" not in plain.headers
    assert plain.content == answer.content


def test_speed_and_seed(server: Running) -> None:
    def size(**fields: Any) -> int:
        return len(server.speech(input=TEXT, response_format="pcm", **fields).content)

    assert size(speed=2.0) < 0.6 * size()
    one, two = (
        server.speech(input="Hi.", seed=seed, response_format="pcm").content for seed in (1, 2)
    )
    assert one != two


@pytest.mark.parametrize(
    ("fields", "status", "param", "told"),
    [
        ({}, 400, "input", "required"),
        ({"input": ""}, 400, "input", "empty"),
        ({"input": "x" * 4097}, 400, "input", "4096"),
        ({"input": "Привет"}, 400, "input", "Cyrillic"),
        ({"input": "\ud800"}, 400, "input", "unicode"),
        ({"input": 7}, 400, "input", "string"),
        ({"input": "Hi.", "speed": 3}, 400, "speed", "0.5 to 2.0"),
        ({"input": "Hi.", "speed": 0.25}, 400, "speed", "0.5 to 2.0"),
        ({"input": "Hi.", "speed": 4.5}, 400, "speed", "4"),
        ({"input": "Hi.", "speed": float("nan")}, 400, "speed", "4"),
        ({"input": "Hi.", "voice": "nobody"}, 400, "voice", "/v1/audio/voices"),
        ({"input": "Hi.", "voice": {"id": "nobody"}}, 400, "voice", "nobody"),
        ({"input": "Hi.", "voice": "me.wav"}, 400, "voice", "me.wav"),
        ({"input": "Hi.", "response_format": "m4a"}, 400, "response_format", "mp3"),
        ({"input": "Hi.", "num_steps": 3}, 400, "num_steps", "1, 2, 4"),
        ({"input": "Hi.", "language": "tlh"}, 400, None, "tlh"),
        ({"input": "Hi.", "volume": 11}, 400, "volume", "no field"),
        ({"input": "Hi.", "model": "gpt-5"}, 404, "model", "tts-1"),
    ],
)
def test_bad_requests(
    server: Running, fields: dict[str, Any], status: int, param: str | None, told: str
) -> None:
    headers = {"content-type": "application/json"}
    answer = server.post("/audio/speech", content=json.dumps(fields), headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert told in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("GET", "/v1/audio/speech", 405), ("GET", "/docs", 404)],
)
def test_framework_errors_have_the_same_shape(
    server: Running, method: str, path: str, status: int
) -> None:
    answer = server.client.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()["error"]) == ["message", "type", "param", "code"]


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"seed": ' + b"1" * 5_000 + b"}", b""])
def test_bodies_that_are_no_json(server: Running, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = server.post("/audio/speech", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_aac_without_pyav_tells_what_to_install(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    answer = server.speech(input="Hi.", response_format="aac")
    assert answer.status_code == 400
    assert 'pip install "stepflow-tts[av]"' in answer.json()["error"]["message"]


def test_upload_speak_delete(server: Running, tts: StepFlowTTS, voice_audio: Any) -> None:
    recording = wav(voice_audio(150.0))
    answer = server.upload(recording, name="Me & you", language="en-gb")
    assert answer.status_code == 200, answer.text
    voice = answer.json()
    assert (voice["name"], voice["language"]) == ("Me & you", "en-gb")
    assert voice["type"] == "audio_sample"
    said = server.speech(input="Hi.", voice={"id": voice["id"]}, response_format="pcm").content
    same = tts.encode_voice(recording, language="en-gb")
    assert said == np.rint(tts.synthesize("Hi.", same).samples * 32_767).astype("<i2").tobytes()
    assert voice in server.client.get("/v1/audio/voices").json()["voices"]
    gone = server.client.delete(f"/v1/audio/voices/{voice['id']}")
    assert gone.json() == {"id": voice["id"], "object": "audio.voice.deleted", "deleted": True}
    assert server.client.delete(f"/v1/audio/voices/{voice['id']}").status_code == 404
    assert server.speech(input="Hi.", voice=voice["id"]).status_code == 400
    assert server.client.delete("/v1/audio/voices/ben").status_code == 403


def test_consent_is_required(server: Running, voice_audio: Any) -> None:
    for consent in ("", "false", "cons_123"):
        answer = server.upload(wav(voice_audio()), consent=consent)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "consent")


def test_metrics_count_what_is_spoken(server: Running) -> None:
    names = ("stepflow_speech_seconds_total", "stepflow_rtf_count", "stepflow_first_audio_")
    before = [server.metric(name) for name in names]
    answer = server.speech(input=TEXT, response_format="pcm")
    after = [server.metric(name) for name in names]
    assert after[0] - before[0] == pytest.approx(len(answer.content) / 48_000, abs=1e-3)
    assert after[1] - before[1] == 1
    assert after[2] > before[2]
    count = 'stepflow_requests_total{route="/v1/audio/speech",status="200"}'
    ok = server.metric(count)
    server.speech(input="Hi.")
    assert server.metric(count) == ok + 1


def test_health(server: Running) -> None:
    assert server.client.get("/healthz").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ready"}


def test_failure_in_mid_stream_is_seen(checkpoint_folder: Path) -> None:
    own = StepFlowTTS.from_pretrained(checkpoint_folder)
    vocoder = own._checkpoint.vocoder
    assert vocoder is not None
    weights = {name: value.clone() for name, value in vocoder.state_dict().items()}

    def ask(stream_format: str) -> bytes:
        body = {"input": LONG, "response_format": "pcm", "stream_format": stream_format}
        data = b""
        with server.client.stream("POST", "/v1/audio/speech", json=body) as answer:
            for part in answer.iter_bytes():
                if not data:
                    for parameter in vocoder.parameters():
                        parameter.data.fill_(float("nan"))
                data += part
        return data

    with running(own) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            ask("audio")
        answer = server.speech(input="Hi.")
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "synthesis_failed"
        vocoder.load_state_dict(weights)
        last = json.loads(ask("sse").decode().split("data: ")[-1])
        assert (last["type"], last["error"]["type"]) == ("error", "server_error")
        vocoder.load_state_dict(weights)
        assert server.speech(input="Hi.").status_code == 200
        wait_until(lambda: server.metric("stepflow_queue_jobs") == 0)

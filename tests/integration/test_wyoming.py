"""The Wyoming server, through the protocol's own client."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
    SynthesizeVoice,
)

from stepflow_tts import Speech, StepFlowTTS
from stepflow_tts.cli import main
from stepflow_tts.server.wyoming.events import MAX_CHARACTERS
from stepflow_tts.server.wyoming.server import MAX_CONNECTIONS, WyomingServer

TEXT = "This is the first sentence. Another one follows it here. Then a third.\nThe last is alone."
BOOK = "This is one of very many sentences, each of which takes a while. " * 60
SECONDS = 60.0  # to wait for an event


@asynccontextmanager
async def connected(tts: StepFlowTTS) -> AsyncIterator[Callable[[], AsyncTcpClient]]:
    """A server, and a function that makes clients of it."""
    server = WyomingServer(tts, tts.voices)
    port = await server.start("127.0.0.1", 0)
    try:
        yield lambda: AsyncTcpClient("127.0.0.1", port, read_timeout=SECONDS)
    finally:
        await server.stop()


def talk(tts: StepFlowTTS, scenario: Callable[[AsyncTcpClient], Coroutine[Any, Any, None]]) -> None:
    """Run what one client does."""

    async def run() -> None:
        async with connected(tts) as client, client() as one:
            await scenario(one)

    asyncio.run(run())


async def send(client: AsyncTcpClient, *events: Eventable) -> None:
    for event in events:
        await client.write_event(event.event())


async def read_until(client: AsyncTcpClient, *kinds: type[Eventable]) -> list[Event]:
    """The events up to the first of these kinds."""
    events: list[Event] = []
    while not events or not any(kind.is_type(events[-1].type) for kind in kinds):
        event = await client.read_event()
        assert event is not None, "the server hung up"
        events.append(event)
    return events


async def spoken(client: AsyncTcpClient, last: type[Eventable] = AudioStop) -> np.ndarray:
    """(S,) int16 samples of an answer, whose form is checked."""
    events = await read_until(client, last, Error)
    names = ["audio-start", *["audio-chunk"] * (len(events) - 2), "audio-stop"]
    if last is SynthesizeStopped:
        names = [*names[:-2], "audio-stop", "synthesize-stopped"]
    assert [event.type for event in events] == names
    formats = [{key: e.data[key] for key in ("rate", "width", "channels")} for e in events[:-2]]
    assert formats == [{"rate": 24_000, "width": 2, "channels": 1}] * len(formats)
    return np.frombuffer(b"".join(event.payload or b"" for event in events), "<i2")


def expected(tts: StepFlowTTS, text: str, voice: str = "anna", **options: Any) -> np.ndarray:
    return np.rint(tts.synthesize(text, voice, **options).samples * 32_767).astype(np.int16)


def test_describe_lists_the_voices_and_promises_streaming(tts: StepFlowTTS) -> None:
    async def scenario(client: AsyncTcpClient) -> None:
        await send(client, Describe(), Ping("hello"))
        (event,) = await read_until(client, Info)
        (program,) = Info.from_event(event).tts
        assert program.installed
        assert program.supports_synthesize_streaming
        assert [(v.name, v.description, v.languages) for v in program.voices] == [
            ("anna", "Anna", ["en-US"]),
            ("ben", "Ben", ["en-GB"]),
        ]
        assert all(voice.installed for voice in program.voices)
        (event,) = await read_until(client, Pong)
        assert Pong.from_event(event).text == "hello"

    talk(tts, scenario)


def test_texts_are_spoken_one_after_another(tts: StepFlowTTS) -> None:
    async def scenario(client: AsyncTcpClient) -> None:
        await send(client, Synthesize(TEXT), Synthesize("And this."))
        for text in (TEXT, "And this."):
            np.testing.assert_array_equal(await spoken(client), expected(tts, text))

    talk(tts, scenario)


@pytest.mark.parametrize("seed", range(2))
def test_chunks_cut_anywhere_are_one_text(tts: StepFlowTTS, seed: int) -> None:
    rng = random.Random(seed)
    places = sorted({0, len(TEXT), *rng.choices(range(len(TEXT)), k=30)})
    chunks = [TEXT[a:b] for a, b in pairwise(places)]

    async def scenario(client: AsyncTcpClient) -> None:
        await send(client, SynthesizeStart(SynthesizeVoice("ben")))
        await send(client, *map(SynthesizeChunk, chunks[:15]))
        await send(client, Synthesize(TEXT))  # which clients send for older servers
        await send(client, *map(SynthesizeChunk, chunks[15:]), SynthesizeStop())
        heard = await spoken(client, SynthesizeStopped)
        np.testing.assert_array_equal(heard, expected(tts, TEXT, "ben"))
        await send(client, Synthesize("And this."))
        np.testing.assert_array_equal(await spoken(client), expected(tts, "And this."))

    talk(tts, scenario)


def test_a_sentence_is_spoken_while_the_text_goes_on(tts: StepFlowTTS) -> None:
    async def scenario(client: AsyncTcpClient) -> None:
        await send(client, SynthesizeStart())
        await send(client, *map(SynthesizeChunk, TEXT[:70]))
        await read_until(client, AudioChunk)
        await send(client, SynthesizeChunk(TEXT[70:]), SynthesizeStop())
        await read_until(client, SynthesizeStopped)

    talk(tts, scenario)


@pytest.mark.parametrize(
    ("voice", "right"),
    [
        (None, "anna"),
        (SynthesizeVoice(name="ben"), "ben"),
        (SynthesizeVoice(language="en_GB"), "ben"),
        (SynthesizeVoice(language="en"), "anna"),
    ],
)
def test_voices_by_name_and_language(
    tts: StepFlowTTS, voice: SynthesizeVoice | None, right: str
) -> None:
    async def scenario(client: AsyncTcpClient) -> None:
        await send(client, Synthesize("Hello there.", voice))
        np.testing.assert_array_equal(await spoken(client), expected(tts, "Hello there.", right))

    talk(tts, scenario)


def test_ssml(tts: StepFlowTTS) -> None:
    text = '<speak>One. <break time="400ms"/> Two.</speak>'

    async def scenario(client: AsyncTcpClient) -> None:
        await send(client, Synthesize(text, text_format="ssml"))
        right = expected(tts, text, markup="ssml")
        np.testing.assert_array_equal(await spoken(client), right)

    talk(tts, scenario)


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            Synthesize("Hi.", SynthesizeVoice("../me.wav")),
            "OptionError",
            "Choose one of: anna, ben",
        ),
        (Synthesize("Hi.", SynthesizeVoice("ben", speaker="2")), "OptionError", "no speakers"),
        (Synthesize("Hi.", SynthesizeVoice(language="fr")), "OptionError", "'fr' is not spoken"),
        (Synthesize("Hi.", text_format="latex"), "OptionError", "must be 'plain' or 'ssml'"),
        (Synthesize("<speak>", text_format="ssml"), "TextError", "SSML"),
        (Synthesize("..."), "TextError", "at least one word"),
        (Synthesize("a" * (MAX_CHARACTERS + 1)), "TextError", "more than 20000 characters"),
        (Synthesize(5), "TextError", "must be a string"),  # type: ignore[arg-type]
        (Synthesize(None), "TextError", "must be a string"),  # type: ignore[arg-type]
        (SynthesizeChunk("Hi.\ud83d"), "TextError", "must be a string of characters"),
    ],
)
def test_errors_are_told_and_the_connection_lives(
    tts: StepFlowTTS, request_: Eventable, code: str, message: str
) -> None:
    async def scenario(client: AsyncTcpClient) -> None:
        if isinstance(request_, SynthesizeChunk):  # which the client's own JSON cannot hold
            assert client._writer is not None
            line = b'{"type": "synthesize-chunk", "data": {"text": "Hi.\\ud83d"}}\n'
            client._writer.write(line)
        else:
            await send(client, request_)
        (event,) = await read_until(client, Error)
        error = Error.from_event(event)
        assert error.code == code
        assert message in error.text
        await send(client, Synthesize("Hello there."))
        np.testing.assert_array_equal(await spoken(client), expected(tts, "Hello there."))

    talk(tts, scenario)


@pytest.mark.parametrize("chunks", [["...", " \n"], ["word " * 50] * (MAX_CHARACTERS // 250 + 1)])
def test_a_bad_text_in_parts_ends_as_a_good_one(tts: StepFlowTTS, chunks: list[str]) -> None:
    async def scenario(client: AsyncTcpClient) -> None:
        await send(client, SynthesizeStart(), *map(SynthesizeChunk, chunks), SynthesizeStop())
        events = await read_until(client, SynthesizeStopped)
        assert [event.type for event in events] == ["error", "synthesize-stopped"]
        await send(client, SynthesizeStart(), SynthesizeChunk("Hi there."), SynthesizeStop())
        heard = await spoken(client, SynthesizeStopped)
        np.testing.assert_array_equal(heard, expected(tts, "Hi there."))

    talk(tts, scenario)


class CountingTTS(StepFlowTTS):
    """Counts the pieces it makes."""

    num_made = 0

    async def astream(self, *args: Any, **options: Any) -> AsyncIterator[Speech]:
        async for piece in super().astream(*args, **options):
            self.num_made += 1
            yield piece


def test_hanging_up_stops_the_work(checkpoint_folder: Path) -> None:
    async def run() -> None:
        tts = CountingTTS.from_pretrained(checkpoint_folder, device="cpu")
        async with connected(tts) as client:
            async with client() as leaving:
                await send(leaving, Synthesize(BOOK))
                await read_until(leaving, AudioChunk)
            made = tts.num_made
            async with client() as staying:
                await send(staying, Synthesize("Hello there."))
                await spoken(staying)
            assert tts.num_made <= made + 2  # the one under way, and this client's
            await asyncio.sleep(0.2)
            assert tts.num_made <= made + 2

    asyncio.run(run())


def test_nothing_waits_for_the_text_of_a_client_that_left(tts: StepFlowTTS) -> None:
    async def run() -> None:
        async with connected(tts) as client:
            before = len(asyncio.all_tasks())
            async with client() as leaving:
                await send(leaving, SynthesizeStart(), SynthesizeChunk("Hello "), Ping())
                await read_until(leaving, Pong)
                assert len(asyncio.all_tasks()) > before
            async with asyncio.timeout(SECONDS):
                while len(asyncio.all_tasks()) > before:
                    await asyncio.sleep(0.01)

    asyncio.run(run())


def test_a_book_keeps_no_sentence_waiting(tts: StepFlowTTS) -> None:
    async def run() -> None:
        async with connected(tts) as client, client() as reader, client() as asker:
            await send(reader, Synthesize(BOOK))
            book = asyncio.create_task(spoken(reader))
            await send(asker, Synthesize("Hello there."))
            np.testing.assert_array_equal(await spoken(asker), expected(tts, "Hello there."))
            assert not book.done()
            book.cancel()

    asyncio.run(run())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"[]\n",
        b"{}\n",
        b"[" * 100_000 + b"\n",
        b'{"type": "synthesize", "data_length": "1"}\n{}',
        b'{"type": "synthesize", "data_length": 1000000000}\n{',
        b'{"type": "audio-chunk", "payload_length": 1000000000}\n0',
        b'{"type": "' + b"x" * 1_000_000,
    ],
    ids=lambda data: data[:40].decode(),
)
def test_what_is_no_event_ends_the_connection(tts: StepFlowTTS, data: bytes) -> None:
    async def run() -> None:
        async with connected(tts) as client:
            bad = client()
            await bad.connect()
            assert bad._writer is not None
            bad._writer.write(data)
            with suppress(ConnectionError):  # where the rest of the data met a closed socket
                event = await bad.read_event()
                assert event is not None
                assert Error.from_event(event).code == "refused"
                assert await bad.read_event() is None
            bad._writer.close()
            async with client() as good:
                await send(good, Ping())
                await read_until(good, Pong)

    asyncio.run(run())


def test_connections_are_counted(tts: StepFlowTTS) -> None:
    async def run() -> None:
        async with connected(tts) as client:
            clients = [client() for _ in range(MAX_CONNECTIONS)]
            for one in clients:
                await one.connect()
                await send(one, Ping())
                await read_until(one, Pong)
            async with client() as another:
                (event,) = await read_until(another, Error)
                assert f"{MAX_CONNECTIONS} connections" in Error.from_event(event).text
            for one in clients:
                await one.disconnect()
            await asyncio.sleep(0.05)
            async with client() as another:
                await send(another, Ping())
                await read_until(another, Pong)

    asyncio.run(run())


def test_the_command_speaks_a_recording_s_voice_and_finishes_when_told_to_stop(
    checkpoint_folder: Path, voice_audio: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "me.wav", voice_audio(150.0, 3.0), 24_000)
    command = [sys.executable, "-m", "stepflow_tts", "wyoming", "--port", "0"]
    command += ["--model", str(checkpoint_folder), "--voice", str(tmp_path / "me.wav")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:

        async def run() -> None:
            assert process.stderr is not None
            told = re.search(r"tcp://127\.0\.0\.1:(\d+)", process.stderr.readline())
            assert told is not None
            async with AsyncTcpClient("127.0.0.1", int(told[1]), read_timeout=SECONDS) as client:
                await send(client, Describe())
                (event,) = await read_until(client, Info)
                names = [voice.name for voice in Info.from_event(event).tts[0].voices]
                assert names == ["me", "anna", "ben"]
                await send(client, Synthesize(TEXT))
                await read_until(client, AudioStart)
                process.send_signal(signal.SIGTERM)
                await read_until(client, AudioStop)
                assert await client.read_event() is None

        try:
            asyncio.run(run())
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "Pass --no-auth to let everybody in"),
        (["--port", "70000"], "port is 70000"),
        (["--voice", "nobody"], "Choose one of: anna, ben"),
        (["--voice", "nobody.wav"], "nobody.wav"),
    ],
)
def test_what_the_command_refuses(
    options: list[str], message: str, checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["wyoming", "--model", str(checkpoint_folder), *options]) == 2
    assert message in capsys.readouterr().err

"""One client of the server."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import TypeAlias, cast

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, async_write_event
from wyoming.info import Describe
from wyoming.ping import Ping, Pong
from wyoming.tts import (
    Synthesize,
    SynthesizeChunk,
    SynthesizeStart,
    SynthesizeStop,
    SynthesizeStopped,
)

from stepflow_tts.errors import InputError, StepFlowError
from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.server.wyoming.events import (
    ArrivingText,
    check_length,
    choose_voice,
    describe,
    parse,
    pcm_chunks,
)
from stepflow_tts.speech import Speech
from stepflow_tts.text.plan import Markup
from stepflow_tts.voice import Voice

logger = logging.getLogger(__name__)

Request: TypeAlias = Synthesize | SynthesizeStart
SAMPLE_BYTES = 2


class Connection:
    """A client, and what is being spoken to it."""

    def __init__(
        self,
        tts: StepFlowTTS,
        voices: Mapping[str, Voice],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._tts = tts
        self._voices = voices
        self._reader = reader
        self._writer = writer
        self._text: ArrivingText | None = None  # between synthesize-start and synthesize-stop
        self.speaking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Answer until the client leaves, which ends what is being spoken to it."""
        try:
            while (event := await self._read()) is not None:
                try:
                    await self._answer(parse(event))
                except InputError as error:
                    await self._tell(error)
            if not self._reader.at_eof():
                await self.refuse("That is no event: a line of JSON, and the bytes it announces.")
        except OSError:
            pass  # it hung up
        finally:
            self.close()

    def close(self) -> None:
        """Stop speaking and hang up."""
        if self.speaking is not None:
            self.speaking.cancel()
        self._writer.close()

    async def refuse(self, reason: str) -> None:
        """Hang up, and say why."""
        with suppress(OSError):  # it did so itself
            await self._write(Error(reason, "refused"))
        self._writer.close()

    async def _read(self) -> Event | None:
        """The next event; None when there are no more, or it is none."""
        try:
            return await async_read_event(self._reader)
        except (EOFError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # as the function itself gives for a ValueError

    async def _write(self, event: Eventable) -> None:
        await async_write_event(event.event(), self._writer)

    async def _tell(self, error: Exception) -> None:
        """Send an error, but nothing of what only the log may hold."""
        text = "The server failed at this request. Its log tells why."
        if isinstance(error, StepFlowError):
            text = str(error)
        await self._write(Error(text, type(error).__name__))

    async def _answer(self, request: Eventable | None) -> None:
        """Do what an event asks for; those of other kinds are not for us."""
        match request:
            case Describe():
                await self._write(describe(self._voices))
            case Ping():
                await self._write(Pong(request.text))
            case Synthesize() if self._text is None:  # else it repeats what the chunks hold
                await self._begin(request, request.text)
            case SynthesizeStart():
                self._end_text()
                self._text = ArrivingText()
                await self._begin(request, self._text)
            case SynthesizeChunk() if self._text is not None:
                self._text.add(request.text)
            case SynthesizeStop():
                self._end_text()

    def _end_text(self) -> None:
        if self._text is not None:
            self._text.end()
        self._text = None

    async def _begin(self, request: Request, text: str | ArrivingText) -> None:
        """Speak a request once the one before is over."""
        if self.speaking is not None:
            await asyncio.wait({self.speaking})
        self.speaking = asyncio.create_task(self._speak(request, text))

    async def _speak(self, request: Request, text: str | ArrivingText) -> None:
        """The whole answer: audio or an error, and the end of a text that came in parts."""
        try:
            await self._send_audio(request, text)
            if isinstance(text, ArrivingText):
                await text.is_over.wait()
                await self._write(SynthesizeStopped())
        except OSError:
            pass  # the client hung up

    async def _send_audio(self, request: Request, text: str | ArrivingText) -> None:
        """Start, chunks and stop; after a failure an error, and a stop where there was a start.

        Raises:
            OSError: the client hung up.
        """
        rate = self._tts.sample_rate
        num_samples = 0
        try:
            async for piece in self._pieces(request, text):
                if not num_samples:
                    await self._write(AudioStart(rate, SAMPLE_BYTES, 1))
                for data in pcm_chunks(piece):
                    timestamp = num_samples * 1000 // rate
                    await self._write(AudioChunk(rate, SAMPLE_BYTES, 1, data, timestamp))
                    num_samples += len(data) // SAMPLE_BYTES
        except OSError:
            raise
        except Exception as error:
            if not isinstance(error, InputError):
                logger.exception("A synthesis failed")
            await self._tell(error)
        if num_samples:
            await self._write(AudioStop(num_samples * 1000 // rate))

    def _pieces(self, request: Request, text: str | ArrivingText) -> AsyncIterator[Speech]:
        """The speech of a request.

        Raises:
            InputError: it cannot be spoken; now, or when a piece is asked for.
        """
        voice = choose_voice(self._voices, request.voice)
        # A format that there is not goes on, to be refused where the known ones are listed.
        format = request.text_format
        markup = cast(Markup, "plain" if format in (None, "text") else format)
        if isinstance(text, ArrivingText):
            return self._tts.astream(text.parts(), voice, markup=markup)
        check_length(len(text))
        return self._tts.astream(text, voice, markup=markup)

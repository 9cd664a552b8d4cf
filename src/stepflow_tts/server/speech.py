"""Answers of speech: the parts of each kind of body, made in a worker's thread."""

import base64
import json
from collections.abc import Callable, Generator, Iterator

from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.server.encoders import Encoder
from stepflow_tts.server.errors import error_body, logger, to_api_error
from stepflow_tts.server.metrics import Metrics, clocked
from stepflow_tts.server.scheduler import Part
from stepflow_tts.server.schemas import SpeechRequest, TimedWord, TimestampsResponse
from stepflow_tts.speech import Speech
from stepflow_tts.subtitles import Word, to_srt
from stepflow_tts.voice import Voice

Parts = Generator[Part, None, None]
Pieces = Callable[[], Iterator[Speech]]


def speak(tts: StepFlowTTS, metrics: Metrics, request: SpeechRequest, voice: Voice) -> Pieces:
    """A function that begins to synthesize a request, and yields its pieces."""

    def pieces() -> Iterator[Speech]:
        return metrics.watch(
            tts.stream(
                request.input,
                voice,
                num_steps=request.num_steps,
                cfg_strength=request.cfg_strength,
                speed=request.speed,
                seed=request.seed,
                language=request.language,
            )
        )

    return pieces


def audio_parts(pieces: Pieces, encoder: Encoder) -> Parts:
    """The bytes of an audio file."""
    for piece in pieces():
        yield Part(encoder.write(piece.samples), piece.duration_seconds)
    yield Part(encoder.close())


def event_parts(
    pieces: Pieces, encoder: Encoder, request: SpeechRequest, frame_rate: float, with_words: bool
) -> Parts:
    """The same bytes in server-sent events, as OpenAI's; with words where they are asked for.

    A failure after the first event is an event too.
    """
    seconds = 0.0
    words: list[Word] = []
    more: dict[str, object] = {}
    has_begun = False
    try:
        for piece, worked in clocked(pieces()):
            if with_words:
                new = words_after(piece, seconds)
                words += new
                more = {
                    "words": [word.model_dump() for word in timed(new)],
                    "sample_rate": piece.sample_rate,
                    "synthesis_seconds": round(worked, 4),
                }
            seconds += piece.duration_seconds
            yield Part(_delta(encoder.write(piece.samples), more), piece.duration_seconds)
            has_begun = True
        if rest := encoder.close():
            nothing = {"words": [], "synthesis_seconds": 0.0} if with_words else {}
            yield Part(_delta(rest, more | nothing))
    except Exception as error:
        if not has_begun:
            raise
        logger.exception("A synthesis failed in mid-stream")
        told = json.loads(error_body(to_api_error(error)))
        yield Part(_event({"type": "error", **told}))
        return
    characters, frames = len(request.input), round(seconds * frame_rate)
    usage = {
        "input_tokens": characters,
        "output_tokens": frames,
        "total_tokens": characters + frames,
    }
    done: dict[str, object] = {"type": "speech.audio.done", "usage": usage}
    if with_words:
        done["srt"] = to_srt(words)
    yield Part(_event(done))


def timestamps_parts(
    pieces: Pieces, encoder: Encoder, request: SpeechRequest, sample_rate: int
) -> Parts:
    """One JSON object with the audio and its words."""
    audio = b""
    words: list[Word] = []
    seconds = 0.0
    for piece in pieces():
        audio += encoder.write(piece.samples)
        words += words_after(piece, seconds)
        seconds += piece.duration_seconds
        yield Part(b"", piece.duration_seconds)
    answer = TimestampsResponse(
        audio=base64.b64encode(audio + encoder.close()).decode("ascii"),
        format=request.response_format,
        sample_rate=sample_rate,
        duration_seconds=seconds,
        words=timed(words),
        srt=to_srt(words),
    )
    yield Part(json.dumps(answer.model_dump()).encode("ascii"))


def words_after(piece: Speech, offset_seconds: float) -> list[Word]:
    """The words of a piece, with times in the whole."""
    return [
        Word(text, offset_seconds + start_seconds, offset_seconds + end_seconds)
        for text, start_seconds, end_seconds in piece.words
    ]


def timed(words: list[Word]) -> list[TimedWord]:
    """The same words as they are sent: to a tenth of a millisecond."""
    return [
        TimedWord(
            text=word.text,
            start_seconds=round(word.start_seconds, 4),
            end_seconds=round(word.end_seconds, 4),
        )
        for word in words
    ]


def _delta(data: bytes, more: dict[str, object]) -> bytes:
    """The event that carries some of the file, and more about it."""
    audio = base64.b64encode(data).decode("ascii")
    return _event({"type": "speech.audio.delta", "audio": audio} | more)


def _event(fields: dict[str, object]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(fields).encode("ascii") + b"\n\n"

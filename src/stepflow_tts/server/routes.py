"""The routes of the API."""

import asyncio
import time
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Request, Response, Security, UploadFile
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from stepflow_tts.errors import AudioError
from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.server import speech
from stepflow_tts.server.encoders import open_encoder
from stepflow_tts.server.errors import ApiError
from stepflow_tts.server.metrics import Metrics
from stepflow_tts.server.responses import JobResponse
from stepflow_tts.server.scheduler import Scheduler
from stepflow_tts.server.schemas import (
    MAX_NAME,
    MEDIA_TYPES,
    MODEL_ALIASES,
    MODEL_ID,
    ErrorBody,
    ModelInfo,
    ModelList,
    SpeechRequest,
    Status,
    TimestampsResponse,
    VoiceDeleted,
    VoiceInfo,
    VoiceList,
)
from stepflow_tts.server.uploads import Decoder
from stepflow_tts.server.voices import VoiceStore

EVENTS = "text/event-stream"
EVENTS_CONTENT = {  # each event of it
    EVENTS: {
        "schema": {
            "type": "object",
            "properties": {
                "event": {"type": "string"},
                "data": {"type": "string", "contentMediaType": "application/json"},
            },
            "required": ["data"],
        }
    }
}
IGNORED_HEADER = "X-StepFlow-Ignored"
CONSENT = "true"


@dataclass(frozen=True, slots=True)
class Service:
    """What the routes of one server share."""

    tts: StepFlowTTS
    voices: VoiceStore
    scheduler: Scheduler
    decoder: Decoder
    metrics: Metrics
    started_at: int


def get_service(request: Request) -> Service:
    """The service of the app that got a request."""
    service: Service = request.app.state.service
    return service


def get_owner(request: Request) -> str:
    """The name of the token of a request; "" without one."""
    owner: str = request.state.owner
    return owner


ServiceOf = Annotated[Service, Depends(get_service)]
OwnerOf = Annotated[str, Depends(get_owner)]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for its description."""
    return {status: {"model": ErrorBody} for status in statuses}


def _answers(model: type[BaseModel], **more: Any) -> dict[int | str, dict[str, Any]]:
    """That a route answers with the JSON of a model, and what else is to be told of the answer."""
    return {200: {"model": model, **more}}


def _speech_content(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """That a route answers with bytes of these types, or with events."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    content = dict.fromkeys(media_types, binary) | EVENTS_CONTENT
    return {200: {"description": "The speech", "content": content}}


public = APIRouter()
# The gate has checked the token before; this tells it in the description of the API.
api = APIRouter(
    prefix="/v1",
    dependencies=[Security(HTTPBearer(auto_error=False))],
    responses=errors(400, 401, 403, 429),
)
SPEECH_ERRORS = errors(404, 413, 415, 500, 503)


@api.post(
    "/audio/speech",
    response_class=Response,
    responses=_speech_content(*MEDIA_TYPES.values()) | SPEECH_ERRORS,
)
async def create_speech(body: SpeechRequest, service: ServiceOf, owner: OwnerOf) -> Response:
    """Speak a text; sent as it is made."""
    return _answer(body, service, owner, with_words=False)


@api.post(
    "/audio/timestamps",
    response_class=Response,
    responses=_answers(TimestampsResponse, content=EVENTS_CONTENT) | SPEECH_ERRORS,
)
async def create_timestamps(body: SpeechRequest, service: ServiceOf, owner: OwnerOf) -> Response:
    """Speak a text, and tell when each of its words is spoken."""
    return _answer(body, service, owner, with_words=True)


def _answer(body: SpeechRequest, service: Service, owner: str, with_words: bool) -> Response:
    """Check what can be checked at once, and queue the rest."""
    check_model(body.model)
    name = body.voice if isinstance(body.voice, str) or body.voice is None else body.voice.id
    voice = service.voices.find(owner, name)
    tts = service.tts
    pieces = speech.speak(tts, service.metrics, body, voice)
    encoder = open_encoder(body.response_format, tts.sample_rate)
    if body.stream_format == "sse":
        frame_rate = tts.config.mel.frame_rate
        parts = speech.event_parts(pieces, encoder, body, frame_rate, with_words)
        media_type = EVENTS
    elif with_words:
        parts = speech.timestamps_parts(pieces, encoder, body, tts.sample_rate)
        media_type = "application/json"
    else:
        parts = speech.audio_parts(pieces, encoder)
        media_type = MEDIA_TYPES[body.response_format]
    headers = {IGNORED_HEADER: "instructions"} if body.instructions else {}
    job = service.scheduler.submit(parts)
    return JobResponse(job, media_type, headers, service.metrics.first_audio.observe)


@api.get("/models")
async def list_models(service: ServiceOf) -> ModelList:
    """The model, and the names of OpenAI's that it answers to."""
    names = (MODEL_ID, *MODEL_ALIASES)
    return ModelList(data=[ModelInfo(id=name, created=service.started_at) for name in names])


@api.get("/models/{model}", responses=errors(404))
async def get_model(model: str, service: ServiceOf) -> ModelInfo:
    """One of them."""
    check_model(model)
    return ModelInfo(id=model, created=service.started_at)


@api.get("/audio/voices")
async def list_voices(service: ServiceOf, owner: OwnerOf) -> VoiceList:
    """The voices that the asker may use."""
    return VoiceList(voices=service.voices.list(owner))


@api.post("/audio/voices", responses=errors(413, 415, 500))
async def create_voice(
    service: ServiceOf,
    owner: OwnerOf,
    name: Annotated[str, Form(max_length=MAX_NAME)],
    audio_sample: Annotated[UploadFile, File(description="1 to 60 s of speech")],
    consent: Annotated[
        str, Form(max_length=100, description='"true": the speaker agrees to be cloned')
    ],
    language: Annotated[str, Form(max_length=20)] = "en-us",
) -> VoiceInfo:
    """Make a voice of a recording, of which the speaker must have agreed."""
    if not name.strip() or not name.isprintable():
        raise ApiError(400, "The name must be printable and not empty.", param="name")
    if consent.strip().lower() != CONSENT:
        raise ApiError(
            400,
            "Clone a voice only with the permission of the person it belongs to: send consent=true.",
            param="consent",
            code="consent_required",
        )
    samples, sample_rate = await service.decoder.decode(await audio_sample.read())

    def encode() -> VoiceInfo:
        try:
            voice = service.tts.encode_voice(
                samples, sample_rate, name=name.strip(), language=language
            )
        except AudioError as error:  # which calls it what it is after decoding
            raise AudioError(str(error).replace("The array", "The recording", 1)) from error
        return service.voices.add(owner, voice)

    return await asyncio.to_thread(encode)


@api.delete("/audio/voices/{voice_id}", responses=errors(404))
async def delete_voice(voice_id: str, service: ServiceOf, owner: OwnerOf) -> VoiceDeleted:
    """Delete a voice that was uploaded with the same token."""
    service.voices.remove(owner, voice_id)
    return VoiceDeleted(id=voice_id)


@public.get("/healthz")
async def healthz() -> Status:
    """That the process is alive."""
    return Status(status="ok")


@public.get("/readyz", responses={503: {"model": Status}})
async def readyz(service: ServiceOf, response: Response) -> Status:
    """Whether requests are being served."""
    if service.scheduler.is_alive:
        return Status(status="ready")
    response.status_code = 503
    return Status(status="stopping")


@public.get("/metrics", include_in_schema=False)
async def metrics(service: ServiceOf) -> Response:
    """Counts and times, for Prometheus."""
    service.metrics.queue.set(service.scheduler.num_jobs)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def check_model(name: str) -> None:
    """Refuse models of other names.

    Raises:
        ApiError: 404.
    """
    if name not in (MODEL_ID, *MODEL_ALIASES):
        raise ApiError(
            404,
            f"The model {name[:40]!r} does not exist. There is {MODEL_ID!r}, also called "
            f"{', '.join(MODEL_ALIASES)}.",
            param="model",
            code="model_not_found",
        )


def make_service(tts: StepFlowTTS, voices: VoiceStore, scheduler: Scheduler) -> Service:
    """A service that nobody has asked for anything yet."""
    return Service(tts, voices, scheduler, Decoder(), Metrics(), int(time.time()))

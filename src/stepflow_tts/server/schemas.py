"""Bodies of requests and answers, as OpenAI's API has them, with a few fields more."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

MODEL_ID = "stepflow-tts"
MODEL_ALIASES = (
    *("tts-1", "tts-1-1106", "tts-1-hd", "tts-1-hd-1106"),
    *("gpt-4o-mini-tts", "gpt-4o-mini-tts-2025-03-20", "gpt-4o-mini-tts-2025-12-15"),
)
"""OpenAI's own names, which clients send unasked: all of them are this one model."""

MAX_INPUT = 4_096
MAX_NAME = 64

ResponseFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
VoiceKind = Literal["bundled", "audio_sample"]
MEDIA_TYPES: dict[ResponseFormat, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


class VoiceReference(BaseModel):
    """A voice as an object."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(max_length=100)]


class SpeechRequest(BaseModel):
    """What to say, and how."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: Annotated[str, Field(max_length=MAX_INPUT, description="What to say.")]
    model: Annotated[str, Field(max_length=100)] = MODEL_ID
    voice: Annotated[
        Annotated[str, Field(max_length=100)] | VoiceReference | None,
        Field(description="A name or id out of /v1/audio/voices, or a name of OpenAI's."),
    ] = None
    instructions: Annotated[
        str | None, Field(max_length=MAX_INPUT, description="Ignored, as a header tells.")
    ] = None
    response_format: ResponseFormat = "mp3"
    speed: Annotated[
        float, Field(ge=0.25, le=4.0, description="Spoken is 0.5 to 2; beyond is an error.")
    ] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    num_steps: Annotated[int, Field(ge=1, le=100)] = 1
    cfg_strength: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    seed: Annotated[int | None, Field(ge=0, le=2**63 - 1)] = 0
    language: Annotated[str | None, Field(max_length=20)] = None


class ErrorFields(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Every error's body."""

    error: ErrorFields


class ModelInfo(BaseModel):
    """A model as OpenAI lists it."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = MODEL_ID


class ModelList(BaseModel):
    """All of the models."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class VoiceInfo(BaseModel):
    """A voice: one of the checkpoint's, or one that was uploaded."""

    id: str
    name: str
    object: Literal["audio.voice"] = "audio.voice"
    type: VoiceKind
    created_at: int
    language: str
    description: str = ""


class VoiceList(BaseModel):
    """The voices that the asker may use."""

    voices: list[VoiceInfo]


class VoiceDeleted(BaseModel):
    """That a voice is gone."""

    id: str
    object: Literal["audio.voice.deleted"] = "audio.voice.deleted"
    deleted: Literal[True] = True


class TimedWord(BaseModel):
    """A word as it was written, and when it is spoken."""

    text: str
    start_seconds: float
    end_seconds: float


class TimestampsResponse(BaseModel):
    """Speech with the times of its words."""

    audio: Annotated[str, Field(description="The file, in base64.")]
    format: ResponseFormat
    sample_rate: int
    duration_seconds: float
    words: list[TimedWord]
    srt: Annotated[str, Field(description="The words as SubRip subtitles.")]


class Status(BaseModel):
    """How the server is."""

    status: Literal["ok", "ready", "stopping"]

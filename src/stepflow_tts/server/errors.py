"""Errors as OpenAI's API tells them: {"error": {"message", "type", "param", "code"}}."""

import json
import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from stepflow_tts.errors import (
    AudioError,
    InputError,
    MissingDependencyError,
    OptionError,
    StepFlowError,
    SynthesisError,
    TextError,
)
from stepflow_tts.server.schemas import SpeechRequest

logger = logging.getLogger(__name__)


class ApiError(HTTPException):
    """An answer that is an error."""

    def __init__(
        self,
        status_code: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status_code, message, headers)
        self.param = param
        self.code = code


def error_body(error: ApiError) -> bytes:
    """The JSON of an error, in ASCII: a client's text may hold surrogates, which no UTF-8 has."""
    kind = "invalid_request_error"
    if error.status_code == 429:
        kind = "rate_limit_error"
    elif error.status_code >= 500:
        kind = "server_error"
    fields = {
        "message": error.detail,
        "type": kind,
        "param": error.param,
        "code": error.code,
    }
    return json.dumps({"error": fields}).encode("ascii")


def error_response(error: ApiError) -> Response:
    """The answer that tells an error."""
    return Response(error_body(error), error.status_code, error.headers, "application/json")


def to_api_error(error: Exception) -> ApiError:
    """What a client is told about any failure; nothing of what only the log may hold."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestValidationError):
        return _from_validation(error)
    if isinstance(error, HTTPException):  # the framework's own: 404, 405, unreadable bodies
        return ApiError(error.status_code, f"{error.detail}.", headers=error.headers)
    if isinstance(error, StepFlowError):
        return _from_package(error)
    return ApiError(500, "The server failed at this request. Its log tells why.")


def _from_package(error: StepFlowError) -> ApiError:
    """An error of the package's tree, whose message is made to be read by its user."""
    if isinstance(error, InputError):
        return ApiError(400, str(error), param=_param(error))
    if isinstance(error, MissingDependencyError):
        return ApiError(400, str(error), param="response_format", code="missing_dependency")
    if isinstance(error, SynthesisError):
        return ApiError(500, str(error), code="synthesis_failed")
    return ApiError(500, "The server failed at this request. Its log tells why.")


def add_handlers(app: FastAPI) -> None:
    """Answer every failure in the one shape."""

    async def handle(_request: Request, error: Exception) -> Response:
        if isinstance(error, SynthesisError):
            logger.error("A synthesis failed: %s", error)
        return error_response(to_api_error(error))

    # What is not foreseen goes to the log with its traceback; Starlette sees to that.
    kinds: tuple[type[Exception], ...] = (
        HTTPException,
        RequestValidationError,
        StepFlowError,
        Exception,
    )
    for kind in kinds:
        app.add_exception_handler(kind, handle)


def _param(error: InputError) -> str | None:
    """The field of the request that an error is about."""
    if isinstance(error, TextError):
        return "input"
    if isinstance(error, AudioError):
        return "audio_sample"
    name = str(error).partition(" ")[0]  # "speed is 3.0; ..."
    return name if isinstance(error, OptionError) and name in SpeechRequest.model_fields else None


def _from_validation(error: RequestValidationError) -> ApiError:
    """The first complaint about a body, with the name of its field."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"][1:]]
    kind, message = str(first["type"]), str(first["msg"])
    if kind == "json_invalid":
        return ApiError(400, "The body is not JSON.", code="invalid_json")
    if not place:
        return ApiError(400, f"The body is wrong: {message}.")
    if kind == "extra_forbidden":
        known = ", ".join(SpeechRequest.model_fields)
        message = f"There is no field {place[0][:40]!r}. Known: {known}."
        return ApiError(400, message, param=place[0][:40], code="unknown_parameter")
    return ApiError(400, f"{place[0]}: {message}.", param=place[0], code=kind)

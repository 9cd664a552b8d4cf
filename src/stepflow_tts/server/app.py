"""The app: routes behind the gate."""

import asyncio
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from stepflow_tts import __version__
from stepflow_tts.pipeline import StepFlowTTS
from stepflow_tts.server.errors import add_handlers
from stepflow_tts.server.gate import Gate
from stepflow_tts.server.routes import api, make_service, public
from stepflow_tts.server.scheduler import Scheduler
from stepflow_tts.server.settings import Settings
from stepflow_tts.server.voices import VoiceStore


def create_app(tts: StepFlowTTS, settings: Settings) -> ASGIApp:
    """An ASGI app that speaks with `tts`; its threads run while it is served.

    Raises:
        CheckpointError: a stored voice is damaged.
    """
    voices = VoiceStore(tts.voices, settings.voices_folder, settings.max_voices)
    scheduler = Scheduler(settings.max_jobs, settings.num_workers)
    service = make_service(tts, voices, scheduler)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        scheduler.start()
        yield
        await asyncio.to_thread(scheduler.close)

    app = FastAPI(
        title="stepflow-tts",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,  # to an address made from the Host header
    )
    app.state.service = service
    app.include_router(public)
    app.include_router(api)
    app.openapi = lambda: describe(app, bool(settings.tokens))  # type: ignore[method-assign]
    add_handlers(app)
    add_page(app)
    # Around everything, so that also the answer to a failure of the app carries its headers.
    return Gate(app, settings, service.metrics)


def add_page(app: FastAPI) -> None:
    """The page at `/`, out of this package."""
    # Windows may call scripts text/plain, and then browsers do not run them.
    mimetypes.add_type("text/javascript", ".js")
    folder = Path(str(files("stepflow_tts.server") / "static"))
    app.mount("/static", StaticFiles(directory=folder))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(folder / "index.html", media_type="text/html; charset=utf-8")


def describe(app: FastAPI, needs_token: bool) -> dict[str, Any]:
    """The API's description: a wrong body is a 400, as it is here, and a token is asked for or not."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for methods in schema["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
                if not needs_token:
                    operation.pop("security", None)
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        app.openapi_schema = schema
    return app.openapi_schema

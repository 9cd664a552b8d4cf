"""An answer that is sent while a job makes it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from stepflow_tts.server.scheduler import Job

logger = logging.getLogger(__name__)


class JobResponse(Response):
    """The parts of a job, each as soon as it is made; the job ends when the client leaves."""

    def __init__(
        self,
        job: Job,
        media_type: str,
        headers: Mapping[str, str],
        on_first_bytes: Callable[[float], None],
    ) -> None:
        """Send nothing yet; `on_first_bytes` is told the seconds that they took."""
        super().__init__(None, 200, headers, media_type)
        del self.headers["content-length"]
        self._job = job
        self._on_first_bytes = on_first_bytes

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and stop making it when the client hangs up."""
        watcher = asyncio.create_task(self._watch(receive))
        try:
            await self._send(send)
        finally:
            watcher.cancel()
            self._job.cancel()

    async def _watch(self, receive: Receive) -> None:
        """Cancel the job at the client's disconnect."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._job.cancel()

    async def _send(self, send: Send) -> None:
        """All parts; a failure before the first bytes is raised, and becomes an error's answer."""
        has_begun = False
        while True:
            try:
                part = await self._job.next()
            except Exception:
                if not has_begun:
                    raise
                # Without a last chunk, the client sees that this is not all.
                logger.exception("A synthesis failed in mid-stream")
                return
            if part is None:
                break
            if not part.data:
                continue
            if not has_begun:
                has_begun = True
                self._on_first_bytes(time.monotonic() - self._job.submitted)
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
            await send({"type": "http.response.body", "body": part.data, "more_body": True})
        if not self._job.is_cancelled:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

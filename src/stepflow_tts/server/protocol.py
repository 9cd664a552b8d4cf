"""uvicorn's HTTP with limits on patience: for a request that trickles in, for a reader that stalls."""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from stepflow_tts.server.errors import ApiError, error_body
from stepflow_tts.server.settings import Settings


def make_protocol(settings: Settings) -> type[asyncio.Protocol]:
    """The class for the connections of a server with these settings."""

    class PatientProtocol(H11Protocol):
        """A connection that is closed when its client takes too long."""

        _request_timer: asyncio.TimerHandle | None = None
        _stall_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._await_request()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._await_request()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.DONE:
                self._unset_request_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unset_request_timer()
            self._unset_stall_timer()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            delay = settings.stall_seconds
            self._stall_timer = self.loop.call_later(delay, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._unset_stall_timer()

        def send_400_response(self, msg: str) -> None:
            """What is not HTTP is told so in the shape of every other error."""
            if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                self.transport.close()  # an answer is under way already
                return
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            response = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
            for event in (response, h11.Data(error_body(ApiError(400, msg))), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
            self.transport.close()

        def _await_request(self) -> None:
            """Start the clock with the first byte of a request, and stop it with the last."""
            if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
                self._unset_request_timer()
            elif self._request_timer is None:
                delay = settings.request_seconds
                self._request_timer = self.loop.call_later(delay, self.transport.abort)

        def _unset_request_timer(self) -> None:
            if self._request_timer is not None:
                self._request_timer.cancel()
                self._request_timer = None

        def _unset_stall_timer(self) -> None:
            if self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None

    return PatientProtocol

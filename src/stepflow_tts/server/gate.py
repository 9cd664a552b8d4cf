"""What every request passes before anything of its body is read."""

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepflow_tts.server.errors import ApiError, error_response
from stepflow_tts.server.metrics import Metrics
from stepflow_tts.server.settings import Settings

MAX_JSON_BYTES = 1 << 17  # 4096 characters take 49 kB when every one of them is escaped
MAX_UPLOAD_BYTES = 10 << 20
UPLOAD_PATH = "/v1/audio/voices"
BODY_TYPES = {
    "/v1/audio/speech": "application/json",
    "/v1/audio/timestamps": "application/json",
    UPLOAD_PATH: "multipart/form-data",
}
PUBLIC_PATHS = ("/", "/healthz", "/readyz", "/openapi.json")
PUBLIC_FOLDER = "/static/"
UPLOAD_COST = 10
MAX_CLIENTS = 10_000  # whose rates are remembered

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; media-src 'self' blob:; worker-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cache-Control": "no-store",
}


class Gate:
    """ASGI middleware around the whole app: it refuses, limits, counts, and adds headers."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        """Guard `app`."""
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._rates = RateLimiter(settings.rate_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is allowed."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(12)}"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                self._metrics.count_request(_route(scope), message["status"])
            await send(message)

        try:
            self._admit(scope)
        except ApiError as error:
            await error_response(error)(scope, receive, send_guarded)
            return
        await self._app(scope, _limited(receive, max_bytes(scope["path"])), send_guarded)

    def _admit(self, scope: Scope) -> None:
        """Nothing, for a request that may be served; `scope["state"]["owner"]` is then whose it is.

        Raises:
            ApiError: it may not.
        """
        headers = Headers(scope=scope)
        path, method = scope["path"], scope["method"]
        check_host(headers.get("host", ""), self._settings.allowed_hosts)
        if method not in ("GET", "HEAD", "OPTIONS"):
            check_origin(headers)
        is_public = path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER)
        owner = ""
        if self._settings.tokens and not is_public:
            owner = check_token(headers.get("authorization", ""), self._settings.tokens)
        scope.setdefault("state", {})["owner"] = owner
        if path.startswith("/v1/"):
            cost = UPLOAD_COST if (method, path) == ("POST", UPLOAD_PATH) else 1
            self._rates.check(owner or (scope.get("client") or ("", 0))[0], cost, time.monotonic())
        if method == "POST" and path in BODY_TYPES:
            check_content(headers, path)


def check_host(host: str, allowed: tuple[str, ...]) -> None:
    """Refuse names that a stranger's DNS could point here; an address or localhost is none of them.

    Raises:
        ApiError: 400.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name in allowed or "*" in allowed:
            return
        ipaddress.ip_address(name)
    except ValueError as error:
        raise ApiError(
            400,
            f"The Host header {host[:80]!r} names no host of this server. Use its address, or "
            "start it with --allowed-host NAME.",
            code="host_not_allowed",
        ) from error


def check_origin(headers: Headers) -> None:
    """Refuse what a page of another site sends.

    Raises:
        ApiError: 403.
    """
    site = headers.get("sec-fetch-site", "none")
    origin = headers.get("origin")
    is_own = origin is None or origin.partition("://")[2] == headers.get("host", "")
    if site not in ("none", "same-origin") or not is_own:
        raise ApiError(
            403, "Pages of other sites may not use this server.", code="origin_not_allowed"
        )


def check_token(authorization: str, tokens: Mapping[str, bytes]) -> str:
    """The name of the token in an Authorization header, compared in constant time.

    Raises:
        ApiError: 401.
    """
    scheme, _, token = authorization.partition(" ")
    digest = hashlib.sha256(token.strip().encode("latin-1", "replace")).digest()
    # All are compared, and by their hashes: the time tells neither which nor how much of one fits.
    found = [name for name, known in tokens.items() if hmac.compare_digest(known, digest)]
    if scheme.lower() != "bearer" or not found:
        raise ApiError(
            401,
            "A known token is needed: Authorization: Bearer TOKEN.",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    return found[0]


def check_content(headers: Headers, path: str) -> None:
    """Refuse bodies of another type than the route's, and those that say they are too large.

    Raises:
        ApiError: 415 or 413.
    """
    expected = BODY_TYPES[path]
    kind, _, options = headers.get("content-type", "").partition(";")
    charset = options.lower().partition("charset=")[2].strip(' "') or "utf-8"
    if kind.strip().lower() != expected or charset != "utf-8":
        raise ApiError(415, f"Send this as Content-Type: {expected}.", code="unsupported_type")
    if headers.get("content-encoding", "identity") != "identity":
        raise ApiError(415, "Send the body uncompressed.", code="unsupported_encoding")
    length = headers.get("content-length", "0")
    limit = max_bytes(path)
    if not length.isdecimal() or int(length) > limit:
        raise too_large(limit)


def max_bytes(path: str) -> int:
    """The longest body that a route takes."""
    return MAX_UPLOAD_BYTES if path == UPLOAD_PATH else MAX_JSON_BYTES


def too_large(limit: int) -> ApiError:
    """That a body has too many bytes."""
    return ApiError(413, f"The body may have at most {limit} bytes.", code="body_too_large")


def _limited(receive: Receive, limit: int) -> Receive:
    """The same messages, until their bodies together are too large."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large(limit)
        return message

    return receive_limited


def _route(scope: Scope) -> str:
    """The template of the route that a request came to."""
    return str(getattr(scope.get("route"), "path", "other"))


class RateLimiter:
    """A bucket for each client: full at first, refilled evenly."""

    def __init__(self, per_minute: int) -> None:
        """0 is no limit."""
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, since when

    def check(self, client: str, cost: int, now: float) -> None:
        """Take `cost` out of the client's bucket at the time `now` in seconds.

        Raises:
            ApiError: there is not enough in it (429).
        """
        if self._per_minute == 0:
            return
        rate = self._per_minute / 60
        left, since = self._buckets.pop(client, (float(self._per_minute), now))
        left = min(self._per_minute, left + (now - since) * rate)
        allowed = left >= min(cost, self._per_minute)
        self._buckets[client] = (left - cost if allowed else left, now)
        while len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if not allowed:
            seconds = max(1, round((cost - left) / rate + 0.5))
            raise ApiError(
                429,
                f"At most {self._per_minute} requests a minute. Try again in {seconds} s.",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(seconds)},
            )

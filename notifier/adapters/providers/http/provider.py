"""A provider that sends one HTTP request per notification.

One `send` never sends a request twice: redirects are not followed, and the client's own retry on a
reused connection is suppressed.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Final

import aiohttp

from notifier.adapters.providers.http.request import Request, Templates, Unrenderable
from notifier.adapters.providers.http.responses import (
    is_code,
    json_document,
    json_path,
    retry_after,
    verdict_of,
)
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.verdict import VerdictName, outcome
from notifier.domain.outcome import Outcome, Unavailable
from notifier.ports.provider import Envelope

MASK: Final = "***"
MIN_SECRET_LENGTH: Final = 6
"""Characters. A shorter secret is easily guessed, and masking it would hide much innocent text."""
_MAX_BODY: Final = 64 * 1024
_MIN_FAILURE_STATUS: Final = 300


@asynccontextmanager
async def open_http(name: str, settings: HttpSettings) -> AsyncIterator[HttpProvider]:
    """An HTTP provider; it connects at the first send. Raises ConfigError for unusable settings."""
    templates = Templates(name, settings)
    connector = aiohttp.TCPConnector(
        limit=settings.max_connections, keepalive_timeout=settings.idle_s
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auth=_basic_auth(settings),
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.connect_timeout_s),
        trace_configs=[_connection_trace()],
        headers={"User-Agent": "Notifier"},
    ) as session:
        yield HttpProvider(name, settings, templates, session)


class _Call:
    """The progress of one request.

    `is_queued` is set while all allowed connections are busy. `may_be_sent` is set once the request
    had a connection: from then on it may have been written.

    Used as a client middleware it lets the request through only once: the client itself would
    repeat GET and PUT on a connection that broke while in use.
    """

    def __init__(self) -> None:
        self.is_queued = False
        self.may_be_sent = False
        self._error: aiohttp.ClientError | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._error is not None:
            raise self._error
        try:
            return await handler(request)
        except aiohttp.ClientError as error:
            self._error = error
            raise


class HttpProvider:
    """Implements ports.provider.Provider."""

    def __init__(
        self,
        name: str,
        settings: HttpSettings,
        templates: Templates,
        session: aiohttp.ClientSession,
    ) -> None:
        self._name = name
        self._settings = settings
        self._templates = templates
        self._session = session
        self._secrets = _secrets_of(settings)

    @property
    def name(self) -> str:
        """Implements ports.provider.Provider."""
        return self._name

    async def send(self, envelope: Envelope) -> Outcome:
        """Implements ports.provider.Provider."""
        try:
            request = self._templates.render(envelope)
        except Unrenderable as error:
            return outcome("refused", "template", str(error))
        call = _Call()
        try:
            async with asyncio.timeout(self._settings.timeout_s) as deadline:
                return await self._request(request, call, deadline, envelope.recipient)
        except TimeoutError:
            return timeout_outcome(call)
        except aiohttp.InvalidURL as error:
            return outcome("refused", "template", f"url: {error}")
        except (aiohttp.ClientError, OSError) as error:
            return failure_outcome(error, may_be_sent=call.may_be_sent)

    async def _request(
        self, request: Request, call: _Call, deadline: asyncio.Timeout, recipient: str
    ) -> Outcome:
        async with self._session.request(
            self._settings.method,
            request.url,
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            middlewares=(call,),
            trace_request_ctx=call,
        ) as response:
            until = deadline.when()
            deadline.reschedule(None)  # the status decides; the body only adds detail
            return self._outcome(response, await _read_body(response, until), recipient)

    def _outcome(self, response: aiohttp.ClientResponse, body: bytes, recipient: str) -> Outcome:
        settings, document = self._settings, json_document(body)
        found = (json_path(document, path) for path in settings.error_code)
        codes = tuple(code for code in found if is_code(code, recipient))
        return outcome(
            verdict_of(response.status, codes, settings.statuses, settings.errors),
            " ".join((str(response.status), *codes[:1])),
            self._masked(body) if response.status >= _MIN_FAILURE_STATUS else "",
            after=retry_after(
                response.headers.get("Retry-After"),
                now=datetime.now(UTC),
                date=response.headers.get("Date"),
                limit=timedelta(seconds=settings.retry_after_max_s),
            ),
            reference=json_path(document, settings.reference) if settings.reference else "",
        )

    def _masked(self, body: bytes) -> str:
        """The body as text without our credentials, which a page that echoes requests contains."""
        text = body.decode(errors="replace")
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def _secrets_of(settings: HttpSettings) -> tuple[str, ...]:
    """The credentials we send, the longest first.

    A header that is a template depends on the notification and counts as no secret.
    """
    fixed = [value for value in settings.headers.values() if "{{" not in value]
    words = [word for value in fixed for word in (value, value.rpartition(" ")[2])]
    basic = base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode()
    secrets = {settings.password, basic if settings.password else "", *words}
    return tuple(
        sorted(
            (secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH),
            key=len,
            reverse=True,
        )
    )


def timeout_outcome(call: _Call) -> Outcome:
    """The outcome of a request that took too long."""
    if call.is_queued:
        return Unavailable(code="no_connection", detail="all connections busy", is_local=True)
    return outcome("ambiguous" if call.may_be_sent else "unavailable", "timeout")


def failure_outcome(error: Exception, *, may_be_sent: bool) -> Outcome:
    """The outcome of a request that failed without a response."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return outcome("credentials", "tls_certificate", str(error))
        case aiohttp.ClientConnectorError():
            return outcome("unavailable", "connection", str(error))
        case _:
            detail = f"{type(error).__name__}: {error}"
            verdict: VerdictName = "ambiguous" if may_be_sent else "unavailable"
            return outcome(verdict, "disconnected", detail)


async def _read_body(response: aiohttp.ClientResponse, until: float | None) -> bytes:
    """Up to 64 KiB of the body, read until the loop's time `until`.

    A body that breaks off or does not end in time is cut: the status has decided already.
    """
    body = bytearray()
    try:
        async with asyncio.timeout_at(until):
            while len(body) < _MAX_BODY and (part := await response.content.readany()):
                body += part
    except (aiohttp.ClientError, OSError):
        response.close()
    if not response.content.at_eof():
        response.close()
    return bytes(body[:_MAX_BODY])


def _basic_auth(settings: HttpSettings) -> aiohttp.BasicAuth | None:
    if not settings.username:
        return None
    return aiohttp.BasicAuth(settings.username, settings.password, encoding="utf-8")


def _connection_trace() -> aiohttp.TraceConfig:
    """Sets `is_queued` and `may_be_sent` of each call as its request gets a connection."""

    async def queued(
        _session: aiohttp.ClientSession, context: SimpleNamespace, _params: object
    ) -> None:
        context.trace_request_ctx.is_queued = True

    async def unqueued(
        _session: aiohttp.ClientSession, context: SimpleNamespace, _params: object
    ) -> None:
        context.trace_request_ctx.is_queued = False

    async def connected(
        _session: aiohttp.ClientSession, context: SimpleNamespace, _params: object
    ) -> None:
        context.trace_request_ctx.may_be_sent = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_queued_start.append(queued)
    trace.on_connection_queued_end.append(unqueued)
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace

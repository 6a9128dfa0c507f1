"""Any provider that takes one HTTP request a message: SMS gateways, FCM, webhooks.

Nothing is sent twice inside one send: redirects are not followed, and the client's own repetition
on a reused connection is cut off.
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

from notifier.adapters.providers.http_answers import (
    is_code,
    json_document,
    json_path,
    retry_after,
    verdict_of,
)
from notifier.adapters.providers.http_request import Request, Templates, Unrenderable
from notifier.adapters.providers.settings import HttpSettings
from notifier.adapters.providers.verdict import outcome
from notifier.domain.outcome import Outcome, Unavailable
from notifier.ports.provider import Envelope

MASK: Final = "***"
MIN_SECRET_LENGTH: Final = 6
"""Characters: a shorter word says little, and would hide much of an innocent text."""
_MAX_BODY: Final = 64 * 1024


@asynccontextmanager
async def open_http(name: str, settings: HttpSettings) -> AsyncIterator[HttpProvider]:
    """An HTTP provider. Connects at the first send. Raises ConfigError for unusable settings."""
    templates = Templates(name, settings)
    connector = aiohttp.TCPConnector(
        limit=settings.max_connections, keepalive_timeout=settings.idle_s
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auth=_basic_auth(settings),
        timeout=aiohttp.ClientTimeout(total=None, connect=settings.connect_timeout_s),
        trace_configs=[_watch_connections()],
        headers={"User-Agent": "Notifier"},
    ) as session:
        yield HttpProvider(name, settings, templates, session)


class _Call:
    """One request on its way.

    `is_queued` while all connections that are allowed are busy. `is_out` once it had one: from
    then on it may have been written. As a middleware it lets the request through once; the client
    repeats GET and PUT by itself on a connection that died in use.
    """

    def __init__(self) -> None:
        self.is_queued = False
        self.is_out = False
        self._lost: aiohttp.ClientError | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if self._lost is not None:
            raise self._lost
        try:
            return await handler(request)
        except aiohttp.ClientError as error:
            self._lost = error
            raise


class HttpProvider:
    """See `ports.provider.Provider`."""

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
        """The name it has in the settings."""
        return self._name

    async def send(self, envelope: Envelope) -> Outcome:
        """One request for one recipient."""
        try:
            request = self._templates.render(envelope)
        except Unrenderable as error:
            return outcome("refused", "template", str(error))
        call = _Call()
        try:
            async with asyncio.timeout(self._settings.timeout_s) as deadline:
                return await self._ask(request, call, deadline, envelope.recipient)
        except TimeoutError:
            return late_outcome(call)
        except aiohttp.InvalidURL as error:
            return outcome("refused", "template", f"url: {error}")
        except (aiohttp.ClientError, OSError) as error:
            return lost_outcome(error, is_out=call.is_out)

    async def _ask(
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
            deadline.reschedule(None)  # answered: the rest of the answer can only add to it
            return self._outcome(response, await _body(response, until), recipient)

    def _outcome(self, response: aiohttp.ClientResponse, body: bytes, recipient: str) -> Outcome:
        settings, document = self._settings, json_document(body)
        found = (json_path(document, path) for path in settings.error_code)
        codes = tuple(code for code in found if is_code(code, recipient))
        return outcome(
            verdict_of(response.status, codes, settings.statuses, settings.errors),
            " ".join((str(response.status), *codes[:1])),
            self._told(body) if response.status >= 300 else "",  # noqa: PLR2004 the class of a status is its hundreds
            after=retry_after(
                response.headers.get("Retry-After"),
                now=datetime.now(UTC),
                date=response.headers.get("Date"),
                most=timedelta(seconds=settings.retry_after_max_s),
            ),
            reference=json_path(document, settings.reference) if settings.reference else "",
        )

    def _told(self, body: bytes) -> str:
        """The body as it may be kept: a page that echoes our request holds our credentials."""
        text = body.decode(errors="replace")
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def _secrets_of(settings: HttpSettings) -> tuple[str, ...]:
    """What we send to prove who we are; a header that is a template is the notification's."""
    fixed = [value for value in settings.headers.values() if "{{" not in value]
    words = [word for value in fixed for word in (value, value.rpartition(" ")[2])]
    basic = base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode()
    known = {settings.password, basic if settings.password else "", *words}
    return tuple(
        sorted((one for one in known if len(one) >= MIN_SECRET_LENGTH), key=len, reverse=True)
    )


def late_outcome(call: _Call) -> Outcome:
    """What a request that took too long means."""
    if call.is_queued:
        return Unavailable(
            code="no_connection", detail="all connections busy", spends=False, is_local=True
        )
    return outcome("ambiguous" if call.is_out else "unavailable", "timeout")


def lost_outcome(error: Exception, *, is_out: bool) -> Outcome:
    """What a request that failed instead of being answered means."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
            return outcome("credentials", "tls_certificate", str(error))
        case aiohttp.ClientConnectorError():
            return outcome("unavailable", "connection", str(error))
        case _:
            detail = f"{type(error).__name__}: {error}"
            return outcome("ambiguous" if is_out else "unavailable", "disconnected", detail)


async def _body(response: aiohttp.ClientResponse, until: float | None) -> bytes:
    """What can be had of the body, at most 64 KiB, by the loop's instant `until`.

    The status has decided already, so a body that breaks off or does not end is no loss.
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


def _watch_connections() -> aiohttp.TraceConfig:
    """Tells each call when it waits for its connection, and when it gets it."""

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
        context.trace_request_ctx.is_out = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_queued_start.append(queued)
    trace.on_connection_queued_end.append(unqueued)
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    return trace

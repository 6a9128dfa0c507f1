"""A provider that sends one HTTP request per notification.

One `send` never writes a whole request twice, and does not follow redirects.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from notifier.adapters.providers.http.answers import AnswerTable
from notifier.adapters.providers.http.connecting import check_connecting
from notifier.adapters.providers.http.failures import failure_outcome, may_repeat
from notifier.adapters.providers.http.request import Request, Templates, Unrenderable
from notifier.adapters.providers.http.responses import body_text, retry_after, values_at
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.http.signing import SIGN_TIMEOUT_S, NotSigned, Signer
from notifier.adapters.providers.http.transport import Answer, Failure, HttpClient, open_client
from notifier.adapters.providers.verdict import outcome, unsendable
from notifier.domain.outcome import TIMEOUT, Misconfigured, Outcome, Unavailable
from notifier.ports.provider import Envelope

MASK: Final = "***"
MIN_SECRET_LENGTH: Final = 6
"""Characters. A shorter secret is easily guessed, and masking it would hide much innocent text."""
FILE_COPIES: Final = 6
_REDIRECTS: Final = range(300, 400)
_UNSIGNED: Final[Mapping[str, str]] = {}


@asynccontextmanager
async def open_http(
    name: str, settings: HttpSettings, signer: Signer | None = None
) -> AsyncIterator[HttpProvider]:
    """An HTTP provider; it connects at the first send. Raises ConfigError for unusable settings."""
    templates, table = Templates(name, settings), AnswerTable(name, settings)
    check_connecting(name, settings)
    async with open_client(name, settings) as client:
        yield HttpProvider(name, settings, templates, table, client, signer)


class HttpProvider:
    """Implements ports.provider.Provider."""

    def __init__(
        self,
        name: str,
        settings: HttpSettings,
        templates: Templates,
        table: AnswerTable,
        client: HttpClient,
        signer: Signer | None = None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._templates = templates
        self._table = table
        self._client = client
        self._signer = signer
        self._secrets = _secrets_of(settings)

    @property
    def name(self) -> str:
        """Implements ports.provider.Provider."""
        return self._name

    @property
    def file_copies(self) -> int:
        """Implements ports.provider.CopiesFiles: in base64, as a text, as a body, and as sent."""
        return FILE_COPIES

    async def send(self, envelope: Envelope) -> Outcome:
        """Implements ports.provider.Provider."""
        try:
            request = self._templates.render(envelope)
        except Unrenderable as error:
            return unsendable("template", str(error))
        if self._signer is not None:
            return await self._send_signed(self._signer, request, envelope.recipient)
        return await self._send(request, envelope.recipient)

    async def _send_signed(self, signer: Signer, request: Request, recipient: str) -> Outcome:
        """Send, and once more if what signed the request was refused and there may be newer."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + SIGN_TIMEOUT_S
        try:
            headers = await _headers(signer, request, deadline)
            outcome = await self._send(request, recipient, headers)
            if not isinstance(outcome, Misconfigured) or not outcome.is_credentials:
                return outcome
            if not signer.drop_refused(headers, outcome.code) or clock() >= deadline:
                return outcome
            headers = await _headers(signer, request, deadline)
        except NotSigned as error:
            return error.outcome
        return await self._send(request, recipient, headers)

    async def _send(
        self, request: Request, recipient: str, signed: Mapping[str, str] = _UNSIGNED
    ) -> Outcome:
        if signed:
            request = Request(request.url, {**request.headers, **signed}, request.body)
        result = await self._result(request)
        if isinstance(result, Failure):
            return failure_outcome(result)
        return self._outcome(result, recipient, signed)

    async def _result(self, request: Request) -> Answer | Failure:
        """Send the request, again if a kept connection broke before the whole was written."""
        result = await self._client.request(request.url, request.headers, request.body)
        if isinstance(result, Failure) and may_repeat(result):
            return await self._client.request(
                request.url, request.headers, request.body, is_fresh=True
            )
        return result

    def _outcome(self, answer: Answer, recipient: str, signed: Mapping[str, str]) -> Outcome:
        decision = self._table.decide(answer, recipient)
        if decision.verdict == "accepted":
            path = self._settings.reference
            references = values_at(decision.document, path) if path else []
            reference = next(iter(references), "")
            return outcome(
                "accepted", decision.code, reference=reference, http_status=answer.status
            )
        return outcome(
            decision.verdict,
            decision.code,
            self._detail(answer, signed),
            after=self._after(answer),
            http_status=answer.status,
        )

    def _after(self, answer: Answer) -> timedelta | None:
        value = answer.header("Retry-After")
        if value is None:
            return None
        return retry_after(
            value,
            now=datetime.now(UTC),
            date=answer.header("Date"),
            limit=timedelta(seconds=self._settings.retry_after_max_s),
        )

    def _detail(self, answer: Answer, signed: Mapping[str, str]) -> str:
        """The body as text, or where a redirect leads to.

        Without our credentials, which a page that echoes requests contains.
        """
        text = body_text(answer.body)
        if answer.status in _REDIRECTS and (location := answer.header("Location")):
            text = f"redirects to {_site(location)} {text}"
        for secret in (*map(_last_word, signed.values()), *self._secrets):
            text = text.replace(secret, MASK)
        return text


async def _headers(signer: Signer, request: Request, deadline: float) -> Mapping[str, str]:
    """Have a request signed before a time of the loop's clock. Raises NotSigned."""
    try:
        async with asyncio.timeout_at(deadline):
            return await signer.headers(request)
    except TimeoutError as error:
        detail = f"not signed within {SIGN_TIMEOUT_S:g} s"
        raise NotSigned(Unavailable(code=TIMEOUT, detail=detail)) from error


def _last_word(value: str) -> str:
    return value.rpartition(" ")[2]


def _site(location: str) -> str:
    """Scheme and host of a URL; its path and query may hold what the request held."""
    try:
        parts = urlsplit(location)
        return f"{parts.scheme}://{parts.hostname}" if parts.hostname else "a path of the same host"
    except ValueError:
        return "an invalid URL"


def _secrets_of(settings: HttpSettings) -> tuple[str, ...]:
    """The credentials we send, the longest first.

    A header that is a template depends on the notification and counts as no secret.
    """
    fixed = [value for value in settings.headers.values() if "{{" not in value]
    words = [word for value in fixed for word in (value, _last_word(value))]
    basic = base64.b64encode(f"{settings.username}:{settings.password}".encode()).decode()
    secrets = {
        settings.password,
        basic if settings.password else "",
        settings.key_password,
        urlsplit(settings.proxy).password or "",
        *words,
    }
    return tuple(
        sorted(
            (secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH),
            key=len,
            reverse=True,
        )
    )

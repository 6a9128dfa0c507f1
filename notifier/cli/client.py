"""The API as the command line calls it; its problems become one line for a person."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from notifier.cli.failures import CommandFailed
from notifier.settings import masked

T = TypeVar("T")

_TIMEOUT_S: Final = 30.0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt, as the API shows it."""

    claim: int
    provider: str
    outcome: str
    code: str | None = None
    detail: str | None = None
    queue_wait_s: float | None = None
    started_at: str | None = None
    finished_at: str | None = None
    next_at: str | None = None


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One notification, as the API shows it."""

    id: str
    status: str
    channel: str
    priority: str
    created_at: str
    updated_at: str
    recipient: str = ""
    tries: int = 0
    last_error: str | None = None
    attempts: list[Attempt] = []


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue, as the API shows it."""

    queue: str
    ready: int
    due: int
    consumers: int
    busy: int
    rate_per_s: float
    oldest_wait_s: float
    limited_by: str | None = None
    paused: bool = False


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One provider, as the API shows it."""

    provider: str
    channels: list[str]
    breaker: str
    reason: str
    probe_in_s: float
    paused: bool
    calls: int
    failures: int


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """A pause, as the API shows it."""

    kind: str
    name: str
    reason: str = ""
    expires_in_s: float | None = None


class Resumed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a resume; `resumed` says whether there was a pause."""

    kind: str
    name: str
    resumed: bool


class Problem(msgspec.Struct, frozen=True):
    """An `application/problem+json`."""

    title: str = ""
    detail: str = ""


class Client:
    """One connection pool to one API. Raises CommandFailed for all that goes wrong."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def get(self, path: str, into: type[T], params: Mapping[str, str] | None = None) -> T:
        """GET a JSON document."""
        return self._read(await self._call("GET", path, params=params), into)

    async def raw(self, path: str) -> object:
        """GET a JSON document as it stands."""
        return self._read(await self._call("GET", path), object)

    async def submit(self, body: object) -> Mapping[str, str]:
        """POST one notification; `{"id", "status", "queue"}`."""
        return await self.post("/v1/notifications", body, dict[str, str])

    async def post(self, path: str, body: object, into: type[T]) -> T:
        """POST a JSON document; the answer."""
        return self._read(await self._call("POST", path, body=msgspec.json.encode(body)), into)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            async with self._session.request(
                method, self._url + path, params=params, data=body, headers=headers
            ) as answer:
                read = await answer.read()
                if not answer.ok:
                    raise CommandFailed(explain_problem(answer.status, read))
                return read
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise CommandFailed(unreachable(self._url, error)) from error

    def _read(self, body: bytes, into: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=into)
        except msgspec.MsgspecError as error:
            msg = f"{masked('url', self._url)} answered what no Notifier would: {error}"
            raise CommandFailed(msg) from error


@asynccontextmanager
async def open_client(url: str, *, connections: int = 10) -> AsyncIterator[Client]:
    """A client of the API at `url`."""
    async with open_session(connections) as session:
        yield Client(url, session)


def open_session(connections: int) -> aiohttp.ClientSession:
    """A session whose calls end after 30 s."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
    )


def path_of(notification_id: str) -> str:
    """Where one notification is read."""
    return f"/v1/notifications/{quote(notification_id, safe='')}"


def explain_problem(status: int, body: bytes) -> str:
    """A problem in one line."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.MsgspecError:
        problem = Problem()
    said = problem.detail or problem.title or "no reason given"
    return f"the API answered {status}: {' '.join(said.split())}"


def unreachable(url: str, error: Exception) -> str:
    """Why there was no answer, in one line; the URL without its password."""
    shown = masked("url", url)
    match error:
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | ValueError():
            return f"{shown!r} is not a URL, expected one like http://127.0.0.1:8000"
        case aiohttp.ClientConnectorError():
            why = error.os_error.strerror or str(error.os_error)
            return f"no API at {shown}: {why}; `notifier dev` or `notifier api` starts one"
        case TimeoutError():
            return f"{shown} did not answer within {_TIMEOUT_S:g} s"
        case aiohttp.ClientResponseError():  # its text would hold the URL
            return f"{shown} answered what is not HTTP: {' '.join(error.message.split())}"
        case _:
            return f"{shown} broke off: {str(error) or type(error).__name__}"

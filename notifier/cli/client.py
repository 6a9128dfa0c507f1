"""The HTTP client of the API. Turns every failure into one line for the person at the terminal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from notifier.cli.environment import client_key
from notifier.cli.failures import CommandFailed
from notifier.settings import masked

T = TypeVar("T")

_TIMEOUT_S: Final = 30.0
_SET_A_KEY: Final = (
    " Set NOTIFIER_CLIENT__KEY or client.key_file to a key that holds: `notifier keys create "
    "--database` makes one where the database is reached."
)
_HINTS: Final = {"key-missing": _SET_A_KEY, "key-invalid": _SET_A_KEY}


class _FieldText(msgspec.Struct, frozen=True):
    field: str
    detail: str


class _ProblemText(msgspec.Struct, frozen=True):
    """The texts of a problem document. All may be missing: a proxy may have sent it."""

    type: str = ""
    title: str = ""
    detail: str = ""
    errors: tuple[_FieldText, ...] = ()


class Client:
    """A client with one connection pool to one API. Raises CommandFailed for every failure."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def get(self, path: str, into: type[T], params: Mapping[str, str] | None = None) -> T:
        """GET a JSON document and decode it into `into`."""
        return self._decode(await self._request("GET", path, params=params), into)

    async def get_raw(self, path: str, params: Mapping[str, str] | None = None) -> object:
        """GET a JSON document as plain Python values, including fields this version ignores."""
        return self._decode(await self._request("GET", path, params=params), object)

    async def get_text(self, path: str, params: Mapping[str, str] | None = None) -> str:
        """GET plain text."""
        return (await self._request("GET", path, params=params)).decode(errors="replace")

    async def put(
        self, path: str, body: object, into: type[T], params: Mapping[str, str] | None = None
    ) -> T:
        """PUT a JSON document and decode the response into `into`."""
        encoded = msgspec.json.encode(body)
        return self._decode(await self._request("PUT", path, params=params, body=encoded), into)

    async def delete(self, path: str, params: Mapping[str, str] | None = None) -> None:
        """DELETE what has no document left."""
        await self._request("DELETE", path, params=params)

    async def delete_into(self, path: str, into: type[T]) -> T:
        """DELETE and decode the response into `into`."""
        return self._decode(await self._request("DELETE", path), into)

    async def post(
        self, path: str, body: object, into: type[T], params: Mapping[str, str] | None = None
    ) -> T:
        """POST a JSON document and decode the response into `into`."""
        encoded = msgspec.json.encode(body)
        return self._decode(await self._request("POST", path, params=params, body=encoded), into)

    async def patch(
        self, path: str, body: object, into: type[T], params: Mapping[str, str] | None = None
    ) -> T:
        """PATCH with a JSON document and decode the response into `into`."""
        encoded = msgspec.json.encode(body)
        return self._decode(await self._request("PATCH", path, params=params, body=encoded), into)

    async def upload(
        self,
        path: str,
        data: bytes,
        content_type: str,
        into: type[T],
        params: Mapping[str, str] | None = None,
    ) -> T:
        """POST bytes of any type and decode the response into `into`."""
        return self._decode(
            await self._request("POST", path, params=params, body=data, content_type=content_type),
            into,
        )

    async def _request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> bytes:
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            async with self._session.request(
                method,
                self._url + path,
                params=params,
                data=body if body is None else BytesIO(body),  # aiohttp warns of large bytes
                headers=headers,
            ) as response:
                content = await response.read()
                if not response.ok:
                    raise CommandFailed(describe_problem(response.status, content))
                return content
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise CommandFailed(describe_connection_error(self._url, error)) from error

    def _decode(self, body: bytes, into: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=into)
        except msgspec.MsgspecError as error:
            msg = (
                f"{masked('url', self._url)} returned an unexpected response: {error}; "
                "check that --url is a Notifier API of this version"
            )
            raise CommandFailed(msg) from error


@asynccontextmanager
async def open_client(url: str, *, connections: int = 10) -> AsyncIterator[Client]:
    """Open a client of the API at `url`."""
    async with open_session(connections) as session:
        yield Client(url, session)


def open_session(connections: int) -> aiohttp.ClientSession:
    """Return a session with at most `connections` connections and a time-out of 30 s a call.

    It sends the key of the settings, if they have one.
    """
    key = client_key()
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
    )


def notification_path(notification_id: str) -> str:
    """Return the path of one notification."""
    return f"/v1/notifications/{quote(notification_id, safe='')}"


def describe_problem(status: int, body: bytes) -> str:
    """Describe an error response in one line."""
    try:
        problem = msgspec.json.decode(body, type=_ProblemText)
    except msgspec.MsgspecError:
        problem = _ProblemText()
    reason = problem.detail or problem.title or "no reason given"
    if len(problem.errors) > 1:
        reason = "; ".join(f"{error.field}: {error.detail}" for error in problem.errors)
    hint = _HINTS.get(problem.type.rpartition(":")[2], "")
    return f"the API answered {status}: {' '.join(reason.split())}{hint}"


def describe_connection_error(url: str, error: Exception) -> str:
    """Describe in one line why no response arrived. Masks the password of the URL."""
    shown = masked("url", url)
    match error:
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | ValueError():
            return f"{shown!r} is not a URL, expected one like http://127.0.0.1:8000"
        case aiohttp.ClientConnectorError():
            reason = error.os_error.strerror or str(error.os_error)
            return (
                f"no API at {shown}: {reason}; "
                "`notifier dev` or `notifier api` starts one, --url names another"
            )
        case TimeoutError():
            return f"{shown} did not answer within {_TIMEOUT_S:g} s"
        case aiohttp.ClientResponseError():  # its text contains the URL
            return f"{shown} sent a response that is not HTTP: {' '.join(error.message.split())}"
        case _:
            return f"{shown} closed the connection: {str(error) or type(error).__name__}"

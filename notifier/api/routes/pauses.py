"""Pauses and resumes a queue, a channel or a provider in every process, and lists the pauses."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.http.body import BodyLimit, read_json_body
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import decode_body
from notifier.api.http.problems import ProblemType, RequestRefused
from notifier.api.http.raw_response import json_response
from notifier.api.requests import PauseRequest
from notifier.api.responses import PauseState, Resumed
from notifier.api.rules import ApiRules
from notifier.api.submission.content import CONTROL_CHARACTER, ONE_LINE_EXPECTED
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.errors import InvalidNotification
from notifier.ports.controls import PauseStore
from notifier.ports.queries import StatusReader

MAX_BODY_BYTES: Final = 8192
_MAX_NAME_LENGTH: Final = 60
"""Characters of an unknown name that the 404 repeats."""
_PAUSE_REQUEST: Final = msgspec.json.Decoder(PauseRequest)
_EMPTY_REQUEST: Final = b"{}"


class _NoFields(msgspec.Struct, forbid_unknown_fields=True):
    """The body that some clients send where none is needed: an empty object."""


_NO_FIELDS: Final = msgspec.json.Decoder(_NoFields)


class PauseRoutes:
    """Handlers of `/v1/pauses`, and of `/pause` and `/resume` below each kind of scope.

    The path parameter is named after the kind of the scope: `queue`, `channel` or `provider`.
    """

    def __init__(self, *, status: StatusReader, store: PauseStore, rules: ApiRules) -> None:
        self._status = status
        self._store = store
        self._deadline_s = rules.request_deadline_s
        self._known = {kind: tuple(rules.names_of(kind)) for kind in ScopeKind}
        self._limit = BodyLimit(
            max_bytes=MAX_BODY_BYTES,
            timeout_s=rules.body_timeout_s,
            detail="A reason and a duration need no more.",
        )

    async def read_all(self) -> ASGIApp:
        async with deadline(self._deadline_s):
            pauses = await self._status.pauses()
        return json_response([PauseState.of(row.pause, matches=row.matches) for row in pauses])

    async def pause(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = _scope_of(request)
        self._check_exists(scope)
        requested = _decode(await _read_optional_body(request, self._limit))
        async with deadline(self._deadline_s):
            await self._store.pause(scope, reason=requested.reason, for_s=requested.for_s)
        return json_response(PauseState(scope.kind, scope.name, requested.reason, requested.for_s))

    async def resume(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = _scope_of(request)
        decode_body(_NO_FIELDS, await _read_optional_body(request, self._limit), known_fields=())
        async with deadline(self._deadline_s):
            was_paused = await self._store.resume(scope)
        if not was_paused:  # a name that the settings no longer have may still be paused
            self._check_exists(scope)
        return json_response(Resumed(scope.kind, scope.name, was_paused))

    def _check_exists(self, scope: Scope) -> None:
        known = self._known[scope.kind]
        if scope.name in known:
            return
        names = ", ".join(known) or "none"
        name = scope.name[:_MAX_NAME_LENGTH]
        detail = f"There is no {scope.kind} {name!r}. There are: {names}."
        raise RequestRefused(
            ProblemType.NOT_FOUND.problem(detail, field=scope.kind, expected=f"one of {names}")
        )


def _scope_of(request: Request[Any, Any, Any]) -> Scope:
    ((kind, name),) = request.path_params.items()
    return Scope(ScopeKind(kind), name)


async def _read_optional_body(request: Request[Any, Any, Any], limit: BodyLimit) -> bytes:
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return _EMPTY_REQUEST
    return await read_json_body(request, limit) or _EMPTY_REQUEST


def _decode(body: bytes) -> PauseRequest:
    request = decode_body(_PAUSE_REQUEST, body, known_fields=PauseRequest.__struct_encode_fields__)
    if CONTROL_CHARACTER.search(request.reason):
        raise InvalidNotification("reason", ONE_LINE_EXPECTED)
    return request

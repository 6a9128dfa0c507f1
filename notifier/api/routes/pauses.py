"""POST: pause and resume a queue, a channel or a provider, for every process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp

from notifier.api.http.body import Bound, read_json
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import decode_body
from notifier.api.http.problems import Kind, Refusal
from notifier.api.http.raw_response import json_response
from notifier.api.requests import PauseRequest
from notifier.api.responses import PauseState, Resumed
from notifier.api.settings import ApiSettings
from notifier.api.submission.content import NO_LINE, ONE_LINE
from notifier.domain.controls import Scope, ScopeKind
from notifier.domain.errors import InvalidNotification

PATHS: Final = {kind: f"/v1/{kind}s/{{{kind}:str}}" for kind in ScopeKind}
MAX_BODY_BYTES: Final = 8192
_SHOWN: Final = 60
_ASK: Final = msgspec.json.Decoder(PauseRequest)
_NO_BODY: Final = b"{}"


class Pausing(Protocol):
    """The half of `ports.controls.ControlStore` that people use. Raises StoreUnavailable."""

    async def pause(self, scope: Scope, *, reason: str, for_s: float | None) -> None: ...
    async def resume(self, scope: Scope) -> bool: ...


def pause_handlers(*, pausing: Pausing, settings: ApiSettings) -> Sequence[HTTPRouteHandler]:
    """Make the handlers that hold work back and let it go on."""
    return [
        handler
        for kind in ScopeKind
        for handler in _handlers_of(kind, pausing=pausing, settings=settings)
    ]


def _handlers_of(
    kind: ScopeKind, *, pausing: Pausing, settings: ApiSettings
) -> Sequence[HTTPRouteHandler]:
    scope_of = _scopes(kind, settings.names_of(kind))
    within_s = settings.request_deadline_s
    bound = Bound(
        most=MAX_BODY_BYTES,
        within_s=settings.body_deadline_s,
        detail="A reason and a span need no more.",
    )

    @post(f"{PATHS[kind]}/pause", status_code=200)
    async def pause(request: Request[Any, Any, Any]) -> ASGIApp:
        scope = scope_of(request)
        asked = _asked(await _body(request, bound))
        async with deadline(within_s):
            await pausing.pause(scope, reason=asked.reason, for_s=asked.for_s)
        return json_response(PauseState(scope.kind, scope.name, asked.reason, asked.for_s))

    @post(f"{PATHS[kind]}/resume", status_code=200)
    async def resume(request: Request[Any, Any, Any]) -> ASGIApp:
        scope = Scope(kind, request.path_params[kind])
        async with deadline(within_s):
            was_paused = await pausing.resume(scope)
        if not was_paused:  # what is no longer in the settings may have a pause left
            scope_of(request)
        return json_response(Resumed(scope.kind, scope.name, was_paused))

    return [pause, resume]


def _scopes(kind: ScopeKind, known: Sequence[str]) -> Callable[[Request[Any, Any, Any]], Scope]:
    names = ", ".join(known) or "none"

    def scope_of(request: Request[Any, Any, Any]) -> Scope:
        name = request.path_params[kind]
        if name in known:
            return Scope(kind, name)
        detail = f"There is no {kind} {name[:_SHOWN]!r}. There are: {names}."
        raise Refusal(Kind.NOT_FOUND.problem(detail, field=kind, expected=f"one of {names}"))

    return scope_of


async def _body(request: Request[Any, Any, Any], bound: Bound) -> bytes:
    """A request without a body asks for a pause without reason and end."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return _NO_BODY
    return await read_json(request, bound)


def _asked(body: bytes) -> PauseRequest:
    asked = decode_body(_ASK, body, known=PauseRequest.__struct_encode_fields__)
    if NO_LINE.search(asked.reason):
        raise InvalidNotification("reason", ONE_LINE)
    return asked

"""`/v1/pauses`: pauses and resumes a queue, a channel, a provider or a tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import author_of, principal_of
from notifier.api.auth.gate import Gate
from notifier.api.http.body import read_optional_body, small_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.raw_response import json_response
from notifier.api.http.tenant_names import KNOWN_TENANT_EXPECTED
from notifier.api.requests import PauseRequest
from notifier.api.responses import DeletedPause, Pause, PausePage
from notifier.api.rules import ApiRules
from notifier.api.submission.validation import TAG_EXPECTED, is_tag
from notifier.domain.controls import HOLD_KINDS, Scope, ScopeKind
from notifier.domain.features import NEEDED_TO_HOLD
from notifier.domain.one_line import checked_note
from notifier.domain.tenants import TENANT_NAME_EXPECTED, tenant_id, unknown_tenants
from notifier.ports.controls import PauseStore
from notifier.ports.heartbeat import FeatureCheck
from notifier.ports.queries import PauseState, StatusReader

PAUSES: Final = "/v1/pauses"
_MAX_NAME_LENGTH: Final = 60
"""Characters of an unknown name that the 404 repeats."""


class _NoFields(msgspec.Struct, forbid_unknown_fields=True):
    """The body that some clients send where none is needed: an empty object."""


_PAUSE_REQUEST: Final = BodyDecoder(PauseRequest)
_NO_FIELDS: Final = BodyDecoder(_NoFields)


class PauseRoutes:
    """Handlers of `/v1/pauses` and `/v1/pauses/{kind}/{name}`."""

    def __init__(
        self,
        *,
        status: StatusReader,
        store: PauseStore,
        features: FeatureCheck,
        gate: Gate,
        rules: ApiRules,
    ) -> None:
        self._features = features
        self._gate = gate
        self._status = status
        self._store = store
        self._deadline_s = rules.request_deadline_s
        self._known = {kind: tuple(rules.names_of(kind)) for kind in ScopeKind}
        self._limit = small_body_limit(rules)

    async def read_all(self, request: Request[Any, Any, Any]) -> ASGIApp:
        async with deadline(self._deadline_s):
            states = await self._status.pauses()
            unknown = await self._unknown_tenants(request, [state.pause.scope for state in states])
        shown = [
            replace(state, matches=False) if state.pause.scope in unknown else state
            for state in states
        ]
        return page_response(request, PausePage([Pause.of(state) for state in shown]))

    async def put(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = _scope_of(request)
        await self._check_exists(request, scope)
        requested = _decode(await read_optional_body(request, self._limit))
        if scope.kind in HOLD_KINDS and (refusal := self._features.refusal(NEEDED_TO_HOLD)):
            raise refusal
        async with deadline(self._deadline_s):
            pause = await self._store.pause(
                scope,
                note=requested.note or "",
                for_s=requested.for_s,
                author=author_of(request.scope),
            )
        return json_response(Pause.of(PauseState(pause=pause, matches=True)))

    async def delete(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = _scope_of(request)
        _NO_FIELDS.decode(await read_optional_body(request, self._limit))
        async with deadline(self._deadline_s):
            was_paused = await self._store.resume(scope, author_of(request.scope))
        if not was_paused:  # a name that the settings no longer have may still be paused
            await self._check_exists(request, scope)
        return json_response(DeletedPause(was_paused))

    async def _check_exists(self, request: Request[Any, Any, Any], scope: Scope) -> None:
        if scope.kind in HOLD_KINDS:
            _check_form(scope)
            async with deadline(self._deadline_s):
                if await self._unknown_tenants(request, [scope]):
                    raise _no_name(scope, KNOWN_TENANT_EXPECTED)
            return
        known = self._known[scope.kind]
        if scope.name not in known:
            raise _not_found("name", str(scope.kind), scope.name, known)

    async def _unknown_tenants(
        self, request: Request[Any, Any, Any], scopes: Sequence[Scope]
    ) -> frozenset[Scope]:
        """Returns the scopes of tenants that do not exist; none if the API asks for no keys."""
        by_tenant = {
            tenant_id(scope.name): scope for scope in scopes if scope.kind is ScopeKind.TENANT
        }
        tenants = await self._gate.tenants(principal_of(request.scope), by_tenant)
        return frozenset(by_tenant[tenant] for tenant in unknown_tenants(by_tenant, tenants))


def _scope_of(request: Request[Any, Any, Any]) -> Scope:
    # Not from the parameters: a tag may have slashes, which a Path would change.
    kind, _, name = request.scope["path"].partition(f"{PAUSES}/")[2].partition("/")
    if kind not in tuple(ScopeKind):
        raise _not_found("kind", "kind of pause", kind, tuple(ScopeKind))
    return Scope(ScopeKind(kind), name)


def _check_form(scope: Scope) -> None:
    """Raises RequestRefused for what is no name of a tenant or tag. Any tag may be paused."""
    if scope.kind is ScopeKind.TAG:
        if not is_tag(scope.name):
            raise _no_name(scope, TAG_EXPECTED)
        return
    try:
        tenant_id(scope.name)
    except ValueError as error:
        raise _no_name(scope, TENANT_NAME_EXPECTED) from error


def _no_name(scope: Scope, expected: str) -> RequestRefused:
    detail = f"There is no {scope.kind} {scope.name[:_MAX_NAME_LENGTH]!r}. It is {expected}."
    return RequestRefused(ProblemType.NOT_FOUND.problem(detail, field="name", expected=expected))


def _not_found(field: str, what: str, name: str, known: tuple[str, ...]) -> RequestRefused:
    names = ", ".join(known) or "none"
    detail = f"There is no {what} {name[:_MAX_NAME_LENGTH]!r}. There are: {names}."
    return RequestRefused(
        ProblemType.NOT_FOUND.problem(detail, field=field, expected=f"one of {names}")
    )


def _decode(body: bytes) -> PauseRequest:
    request = _PAUSE_REQUEST.decode(body)
    checked_note(request.note or "")
    return request

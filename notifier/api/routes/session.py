"""`/v1/session`: sessions of browsers, and who a request comes from."""

from __future__ import annotations

from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp, Scope

from notifier.api.auth.access import (
    ANYONE,
    Principal,
    principal_of,
    principal_of_key,
)
from notifier.api.auth.documents import Session, SessionRequest
from notifier.api.auth.gate import Gate, key_invalid
from notifier.api.auth.sessions import CookiePlace, Sessions
from notifier.api.http.body import read_json_body, small_body_limit
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.public_address import PublicAddress
from notifier.api.http.raw_response import RawResponse, json_response
from notifier.api.rules import ApiRules
from notifier.domain.tenants import tenant_name

SESSION: Final = "/v1/session"
_REQUEST: Final = BodyDecoder(SessionRequest)


class SessionRoutes:
    """Handlers of `/v1/session`."""

    def __init__(self, *, gate: Gate, rules: ApiRules, address: PublicAddress) -> None:
        self._gate = gate
        self._address = address
        self._limit = small_body_limit(rules)

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        return json_response(_session(principal_of(request.scope)))

    async def create(self, request: Request[Any, Any, Any]) -> ASGIApp:
        self._gate.check_browser(request.scope)
        requested = _REQUEST.decode(await read_json_body(request, self._limit))
        auth = self._gate.auth
        if auth is None:
            return json_response(_session(ANYONE), status=201)
        key = await auth.keyring.find(requested.key.strip())
        if key is None:
            raise key_invalid()
        cookie = await auth.sessions.cookie(key.id, self._place(request.scope))
        return json_response(
            _session(principal_of_key(key)), status=201, headers=[(b"set-cookie", cookie.encode())]
        )

    async def delete(self, request: Request[Any, Any, Any]) -> ASGIApp:
        self._gate.check_browser(request.scope)
        cookie = Sessions.end_cookie(self._place(request.scope))
        return RawResponse(204, b"", [(b"set-cookie", cookie.encode())])

    def _place(self, scope: Scope) -> CookiePlace:
        return CookiePlace(
            path=self._address.prefix(scope), is_secure=self._address.url(scope).startswith("https")
        )


def _session(principal: Principal) -> Session:
    return Session(
        key=None if principal.key is None else principal.key.id,
        tenant=None if principal.tenant is None else tenant_name(principal.tenant),
        scopes=sorted(principal.scopes),
        mode=principal.mode,
    )

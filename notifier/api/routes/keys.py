"""`/v1/keys`: makes, lists and revokes keys."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import Principal, author_of, principal_of
from notifier.api.auth.documents import CreatedKey, Key, KeyPage, KeyRequest
from notifier.api.auth.gate import KeyAuth
from notifier.api.http.body import read_json_body, small_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.query import page_of, parse_paging
from notifier.api.http.raw_response import RawResponse, json_response
from notifier.api.http.tenant_names import KNOWN_TENANT_EXPECTED, checked_tenant
from notifier.api.rules import ApiRules
from notifier.domain import keys
from notifier.domain.credentials import ENTROPY_BYTES, KEY_ID, KeyId, Mode, new_credential
from notifier.domain.errors import InvalidNotification
from notifier.domain.keys import MAX_KEYS, NewKey
from notifier.domain.one_line import checked_note
from notifier.domain.tenants import TenantId
from notifier.ports.keys import AccessStore, KeyRefusal

KEYS: Final = "/v1/keys"
MAX_LIFE: Final = timedelta(days=36_525)
_REQUEST: Final = BodyDecoder(KeyRequest)


class KeyRoutes:
    """Handlers of `/v1/keys`. A key makes, sees and revokes keys of its own tenant and mode."""

    def __init__(self, *, store: AccessStore, rules: ApiRules, auth: KeyAuth | None) -> None:
        self._store = store
        self._auth = auth
        self._deadline_s = rules.request_deadline_s
        self._limit = small_body_limit(rules)

    async def read_all(self, request: Request[Any, Any, Any]) -> ASGIApp:
        principal, paging = principal_of(request.scope), parse_paging(request)
        async with deadline(self._deadline_s):
            known = await self._store.keys(principal.tenant)
        seen = [key for key in known if _sees(principal, key)]
        listed = f"keys {principal.tenant} {principal.mode}"
        page, cursor = page_of(seen, _order, paging, listed)
        return page_response(request, KeyPage([Key.of(key) for key in page], cursor))

    async def create(self, request: Request[Any, Any, Any]) -> ASGIApp:
        principal = principal_of(request.scope)
        requested = _REQUEST.decode(await read_json_body(request, self._limit))
        new = _new_key(requested, principal)
        credential = new_credential(new.mode, secrets.token_bytes(ENTROPY_BYTES))
        async with deadline(self._deadline_s):
            made = await self._store.create(new, credential, author_of(request.scope))
        await self._read_keys()
        match made:
            case KeyRefusal.UNKNOWN_TENANT:
                raise InvalidNotification("tenant", KNOWN_TENANT_EXPECTED)
            case KeyRefusal.TOO_MANY:
                raise RequestRefused(
                    ProblemType.IN_USE.problem(
                        f"There are {MAX_KEYS} {new.mode} keys. Revoke one first."
                    )
                )
            case key:
                return json_response(CreatedKey.of_new(key, credential), status=201)

    async def revoke(self, request: Request[Any, Any, Any]) -> ASGIApp:
        principal = principal_of(request.scope)
        id_ = str(request.path_params["key"])
        async with deadline(self._deadline_s):
            known = await self._store.find([KeyId(id_)]) if KEY_ID.fullmatch(id_) else ()
            is_gone = any(_sees(principal, key) for key in known) and await self._store.revoke(
                KeyId(id_), author_of(request.scope), tenant=principal.tenant
            )
        await self._read_keys()
        if not is_gone:
            raise RequestRefused(ProblemType.NOT_FOUND.problem("There is no key with this id."))
        return RawResponse(204, b"", ())

    async def _read_keys(self) -> None:
        """Let this process know of a change before the answer.

        The change is made: without an answer of Postgres they are read within 4 s, as elsewhere.
        """
        if self._auth is not None:
            await self._auth.keyring.run_once()


def _order(key: keys.Key) -> str:
    return f"{key.created_at.timestamp():020.6f} {key.id}"


def _sees(principal: Principal, key: keys.Key) -> bool:
    is_of_mode = principal.mode is Mode.LIVE or key.mode is Mode.TEST
    return is_of_mode and principal.tenant in {None, key.tenant}


def _new_key(requested: KeyRequest, principal: Principal) -> NewKey:
    scopes = tuple(dict.fromkeys(requested.scopes))
    if principal.mode is Mode.TEST and requested.mode is not Mode.TEST:
        raise InvalidNotification("mode", "test, as your own key")
    checked_note(requested.note)
    _check_expiry(requested.expires_at)
    return NewKey(
        tenant=_tenant(requested, principal),
        mode=requested.mode,
        scopes=scopes,
        rate_per_s=_rate(requested, principal),
        note=requested.note,
        expires_at=requested.expires_at,
    )


def _rate(requested: KeyRequest, principal: Principal) -> float | None:
    """A key with a rate makes no key with a higher one, or with none."""
    limit = None if principal.key is None else principal.key.rate_per_s
    rate = limit if requested.rate_per_s is None else requested.rate_per_s
    if limit is not None and rate is not None and rate > limit:
        raise InvalidNotification("rate_per_s", f"at most {limit:g}, the rate of your own key")
    return rate


def _check_expiry(expires_at: datetime | None) -> None:
    # The difference is also defined for instants that have no year in UTC.
    if expires_at is None or timedelta() < expires_at - datetime.now(UTC) <= MAX_LIFE:
        return
    raise InvalidNotification("expires_at", "an instant in the future, at most 100 years ahead")


def _tenant(requested: KeyRequest, principal: Principal) -> TenantId | None:
    """A deployment key makes keys for any tenant, another one for its own."""
    named = None if requested.tenant is None else checked_tenant(requested.tenant)
    if principal.tenant is None:
        return named
    if named not in {None, principal.tenant}:
        raise InvalidNotification("tenant", "your own tenant, or none")
    return principal.tenant

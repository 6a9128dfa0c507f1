"""Admits a request to a route: by its key or session, its scopes, its origin and its rate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, assert_never
from urllib.parse import parse_qsl

from notifier.api.auth.access import (
    ANYONE,
    PUBLIC,
    Access,
    Principal,
    principal_of_key,
    principal_of_user,
    scope_missing,
    set_principal,
)
from notifier.api.auth.browser import host_names, host_of, is_own_origin, is_private_host
from notifier.api.auth.user_tokens import is_user_token
from notifier.api.http.cors import CrossOrigins
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.raw_response import add_headers
from notifier.api.http.tenant_names import KNOWN_TENANT_EXPECTED
from notifier.domain.credentials import Mode
from notifier.domain.errors import InvalidNotification
from notifier.domain.key_rate import RateHolder
from notifier.domain.tenants import DEFAULT_TENANT, unknown_tenants

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from litestar.types import Scope

    from notifier.api.auth.keyring import Keyring
    from notifier.api.auth.rates import KeyRates
    from notifier.api.auth.sessions import Sessions
    from notifier.api.auth.user_tokens import UserTokens
    from notifier.api.http.public_address import PublicAddress
    from notifier.domain.credentials import KeyId
    from notifier.domain.key_rate import Balance
    from notifier.domain.keys import Key
    from notifier.domain.tenants import KnownTenants, TenantId

MAX_HOLDERS: Final = 10_000
TOKEN: Final = "token"  # noqa: S105 the name of a parameter
NAMED_TENANT_EXPECTED: Final = (
    "a tenant: a deployment key names one; default is that of notifications that name none"
)
_BEARER: Final = "bearer "
_READ_HEADERS: Final = frozenset({b"authorization", b"cookie", b"origin", b"host"})
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="notifier"'}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyAuth:
    """What an API that asks for keys needs."""

    keyring: Keyring
    rates: KeyRates
    sessions: Sessions


class Gate:
    """Decides on every request to a route that is not public.

    Without `auth` anyone may do anything, who reaches the port and is no page of another site.
    Pages of `cross_origins` may call routes that take user tokens, and nothing else.
    """

    def __init__(
        self,
        auth: KeyAuth | None,
        address: PublicAddress,
        *,
        public_url: str = "",
        host: str = "",
        guards_metrics: bool = False,
        user_tokens: UserTokens | None = None,
        cross_origins: Collection[str] = (),
    ) -> None:
        self.auth = auth
        self._user_tokens = user_tokens
        self._cross_origins = CrossOrigins(cross_origins)
        self._address = address
        self._known_hosts = host_names(public_url, host)
        self._public_host = host_of(public_url)
        self._guards_metrics = guards_metrics and auth is not None
        self._holders: dict[KeyId, Principal] = {}

    def guards(self, access: Access) -> bool:
        """Whether a route asks anything of its requests."""
        return access.is_guarded(guards_metrics=self._guards_metrics)

    async def admit(self, scope: Scope, access: Access, *, is_safe: bool = False) -> None:
        """Note who makes a request, and charge the call to the key. `is_safe`: it changes nothing.

        Raises RequestRefused (400, 401, 403, 429), and StoreUnavailable for a key that cannot be
        judged.
        """
        headers = self.check_browser(scope, access)
        if access.takes_user_token and (text := _user_token(scope, access, headers)):
            set_principal(scope, await self._user(text))
            return
        if self._is_cross_origin(scope, headers):  # no key belongs there, and no cookie counts
            raise _user_token_missing()
        if self.auth is None:
            set_principal(scope, ANYONE)
            return
        principal = await self._principal(self.auth, headers, is_safe=is_safe)
        _check_access(principal, access)
        set_principal(scope, principal)
        if access.is_submit:
            await self.charge_submit(scope, principal, 1)
        elif not access.charges:
            await self.charge(scope, principal, 1)

    def check_browser(self, scope: Scope, access: Access = PUBLIC) -> Mapping[bytes, bytes]:
        """Check where a browser has the request from; return the headers that the gate reads.

        Raises RequestRefused (400, 403).
        """
        headers = _read_headers(scope)
        if (origin := _origin(headers)) and not self._is_own(scope, origin):
            if not (access.takes_user_token and self._cross_origins.allows(origin)):
                raise _origin_refused("Pages of other sites may not call this API.")
            add_headers(scope, self._cross_origins.headers(origin))
        if self.auth is None:
            self._check_host(headers)
        return headers

    def preflight_headers(
        self, scope: Scope, methods: Collection[str]
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return what a browser is told that asks whether a page may call these methods."""
        origin = _origin(dict(scope["headers"]))
        return self._cross_origins.preflight_headers(origin, methods)

    def still_admits(self, principal: Principal) -> bool:
        """Whether the key or token that a request came with is still valid."""
        if principal.token is not None:
            return self._user_tokens is not None and self._user_tokens.holds(principal.token)
        key = principal.key
        return self.auth is None or key is None or self.auth.keyring.holds(key)

    async def charge(self, scope: Scope, principal: Principal, cost: float) -> None:
        """Charge a call to the key, if it has a rate.

        Raises RequestRefused (429), StoreUnavailable.
        """
        key = principal.key
        if self.auth is not None and key is not None and key.rate_per_s is not None:
            _settle(scope, await self.auth.rates.charge(key, cost))

    async def charge_submit(self, scope: Scope, principal: Principal, cost: float) -> None:
        """Charge a submit to the key, then to its tenant, as `charge` does.

        In this order, so that a key that submits too much spends nothing of the others'.
        """
        await self.charge(scope, principal, cost)
        if self.auth is None or principal.key is None or principal.tenant is None:
            return
        tenant = self.auth.keyring.tenant(principal.tenant)
        if tenant is not None and tenant.rate_per_s is not None:
            _settle(scope, await self.auth.rates.charge_tenant(tenant, principal.mode, cost))

    async def tenants(self, principal: Principal, named: Collection[TenantId] = ()) -> KnownTenants:
        """Return the tenants, with that of a principal or those that a deployment key named.

        None without keys: nobody knows then. Raises StoreUnavailable.
        """
        if self.auth is None:
            return None
        wanted = named if principal.tenant is None else (principal.tenant,)
        return await self.auth.keyring.tenants(wanted)

    async def title_of(self, tenant: TenantId, topic: str) -> str:
        """Return the title of a topic: its name without a better one. Raises StoreUnavailable."""
        if self.auth is None:
            return topic
        known = (await self.auth.keyring.tenants([tenant])).get(tenant)
        return topic if known is None else known.topics.get(topic, topic)

    async def tenant_of(self, principal: Principal, named: TenantId | None, field: str) -> TenantId:
        """Return whose things a request is about: its key's tenant, or the one that it names.

        A deployment key must name one; without keys it is the default one unless another is named.
        Raises InvalidNotification for the field, and StoreUnavailable.
        """
        if principal.tenant is not None:
            if named not in {None, principal.tenant}:
                raise InvalidNotification(field, "your own tenant, or none")
            return principal.tenant
        if named is None:
            if principal.key is not None:
                raise InvalidNotification(field, NAMED_TENANT_EXPECTED)
            return DEFAULT_TENANT
        if unknown_tenants({named}, await self.tenants(principal, {named})):
            raise InvalidNotification(field, KNOWN_TENANT_EXPECTED)
        return named

    async def _user(self, text: str) -> Principal:
        tokens = self._user_tokens
        token = None if tokens is None else await tokens.read(text)
        if token is None:
            raise RequestRefused(
                ProblemType.KEY_INVALID.problem("The token has expired, or is not of this system."),
                _CHALLENGE,
            )
        return principal_of_user(token)

    async def _principal(
        self, auth: KeyAuth, headers: Mapping[bytes, bytes], *, is_safe: bool
    ) -> Principal:
        given = headers.get(b"authorization")
        if given is not None:
            return self._holder(await _key_of(auth, given.decode("latin-1")))
        if cookies := headers.get(b"cookie"):
            key_id = await auth.sessions.key_of(cookies.decode("latin-1"))
            key = None if key_id is None else auth.keyring.key(key_id)
            if key is not None:
                if not is_safe and b"origin" not in headers:
                    raise _origin_refused("The header Origin is missing.")
                return self._holder(key)
        raise RequestRefused(
            ProblemType.KEY_MISSING.problem("Send a key: Authorization: Bearer ntf_live_..."),
            _CHALLENGE,
        )

    def _holder(self, key: Key) -> Principal:
        """Return the holder of a key, the same object until the keys are read again."""
        holder = self._holders.get(key.id)
        if holder is None or holder.key is not key:
            if len(self._holders) > MAX_HOLDERS:
                self._holders.clear()
            holder = self._holders[key.id] = principal_of_key(key)
        return holder

    def _is_own(self, scope: Scope, origin: str) -> bool:
        own = (self._public_host, host_of(self._address.url(scope)), self._address.host(scope))
        return is_own_origin(origin, own)

    def _is_cross_origin(self, scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
        origin = _origin(headers)
        return bool(origin) and not self._is_own(scope, origin)

    def _check_host(self, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host", b"").decode("latin-1")
        if host and not is_private_host(host, self._known_hosts):
            raise _origin_refused(
                "The host of this URL is not known. Set api.public_url, or turn api.auth on."
            )


def _read_headers(scope: Scope) -> Mapping[bytes, bytes]:
    """Return the headers that the gate reads.

    Raises RequestRefused (400) for two different ones of a name: a proxy may have read the other.
    """
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _READ_HEADERS and headers.setdefault(name, value) != value:
            raise RequestRefused(
                ProblemType.BAD_REQUEST.problem(f"There are two headers {name.decode().title()}.")
            )
    return headers


def _check_access(principal: Principal, access: Access) -> None:
    if access.for_deployment and principal.tenant is not None:
        raise RequestRefused(
            ProblemType.SCOPE_MISSING.problem("This needs a key of the deployment, of no tenant.")
        )
    if access.is_live and principal.mode is not Mode.LIVE:
        raise RequestRefused(ProblemType.SCOPE_MISSING.problem("This needs a live key."))
    if access.scopes and principal.scopes.isdisjoint(access.scopes):
        raise scope_missing(*access.scopes)


async def _key_of(auth: KeyAuth, authorization: str) -> Key:
    is_bearer = authorization[: len(_BEARER)].lower() == _BEARER
    key = await auth.keyring.find(authorization[len(_BEARER) :].strip()) if is_bearer else None
    if key is None:
        raise key_invalid()
    return key


def key_invalid() -> RequestRefused:
    """Return the refusal of a key that does not hold."""
    return RequestRefused(
        ProblemType.KEY_INVALID.problem("The key is unknown, revoked or expired."), _CHALLENGE
    )


def _origin(headers: Mapping[bytes, bytes]) -> str:
    """Return the origin of the page that a browser has a request from; empty without one."""
    return headers.get(b"origin", b"").decode("latin-1")


def _user_token(scope: Scope, access: Access, headers: Mapping[bytes, bytes]) -> str:
    """Return the user token of a request; empty without one.

    Raises RequestRefused (400) for more than one, and for one beside a key.
    """
    authorization = headers.get(b"authorization", b"").decode("latin-1")
    is_bearer = authorization[: len(_BEARER)].lower() == _BEARER
    bearer = authorization[len(_BEARER) :].strip() if is_bearer else ""
    in_query = []
    if access.takes_token_in_query:
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        in_query = [value for name, value in pairs if name == TOKEN]
    if len(in_query) + bool(authorization) > 1:
        raise RequestRefused(
            ProblemType.BAD_REQUEST.problem("Send one token, in the header or as a parameter.")
        )
    if in_query:
        return in_query[0] or " "  # an empty one is wrong, too
    return bearer if is_user_token(bearer) else ""


def _user_token_missing() -> RequestRefused:
    return RequestRefused(
        ProblemType.KEY_MISSING.problem("From a page this takes only the token of a user."),
        _CHALLENGE,
    )


def _origin_refused(detail: str) -> RequestRefused:
    return RequestRefused(ProblemType.ORIGIN_REFUSED.problem(detail))


def _settle(scope: Scope, balance: Balance) -> None:
    """Note the balance for the response. Raises RequestRefused (429) if the call has not passed."""
    add_headers(scope, _rate_headers(balance))
    if balance.retry_after_s > 0:
        match balance.holder:
            case RateHolder.KEY:
                detail = f"The key may make {balance.rate_per_s:g} calls a second."
            case RateHolder.TENANT:
                detail = f"The tenant may submit {balance.rate_per_s:g} notifications a second."
            case _:
                assert_never(balance.holder)
        raise RequestRefused(
            ProblemType.RATE_LIMITED.problem(detail),
            {"Retry-After": str(math.ceil(balance.retry_after_s))},
        )


def _rate_headers(balance: Balance) -> list[tuple[bytes, bytes]]:
    return [
        (b"ratelimit-policy", balance.policy.encode()),
        (b"ratelimit", balance.state.encode()),
    ]

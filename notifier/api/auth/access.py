"""What a route asks of a request, and who makes it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.request_id import request_id
from notifier.domain.audit import ANONYMOUS
from notifier.domain.credentials import Mode
from notifier.domain.errors import InvalidNotification
from notifier.domain.keys import Key, KeyScope, granted
from notifier.ports.keys import Author
from notifier.ports.queries import Filter, View

if TYPE_CHECKING:
    from litestar.types import Scope

    from notifier.domain.inbox import UserToken
    from notifier.domain.tenants import TenantId

_PRINCIPAL: Final = "principal"
USER: Final = "user"
"""Who acts with a user token. The id of the user may be an address, so it stays out of logs."""


class AccessKind(StrEnum):
    """Whom a route serves.

    PUBLIC: anyone. KEY: the holder of a key, or of a session that was made with one. METRICS:
    anyone, or with `api.metrics_auth` a deployment key. PROVIDER: who signs as a provider does,
    which the handler of the route verifies.
    """

    PUBLIC = "public"
    KEY = "key"
    METRICS = "metrics"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class Access:
    """What a route asks for: any of `scopes` (none: any key), and of which kind of key.

    `for_deployment`: only deployment keys; otherwise the route shows one tenant. `is_live`: no test
    keys, since what the route shows or changes is not of a test. A call costs one, unless the
    handler of the route `charges` it. `is_submit`: it costs the tenant, too. One that
    `takes_user_token` serves the user of such a token, too, and pages of the origins of
    `api.cors_origins`; `takes_token_in_query`: the token may stand in the parameter `token`.
    """

    kind: AccessKind
    scopes: tuple[KeyScope, ...] = ()
    for_deployment: bool = False
    is_live: bool = False
    charges: bool = False
    is_submit: bool = False
    takes_user_token: bool = False
    takes_token_in_query: bool = False

    def is_guarded(self, *, guards_metrics: bool) -> bool:
        """Whether the route asks anything of its requests. `guards_metrics`: metrics ask, too."""
        match self.kind:
            case AccessKind.PUBLIC | AccessKind.PROVIDER:
                return False
            case AccessKind.METRICS:
                return guards_metrics
            case AccessKind.KEY:
                return True


PUBLIC: Final = Access(AccessKind.PUBLIC)
PROVIDER: Final = Access(AccessKind.PROVIDER)
METRICS: Final = Access(AccessKind.METRICS, (KeyScope.READ,), for_deployment=True)
ANY_KEY: Final = Access(AccessKind.KEY)


def tenant(*scopes: KeyScope) -> Access:
    """A route that shows or changes what one tenant has."""
    return Access(AccessKind.KEY, scopes)


def deployment(*scopes: KeyScope) -> Access:
    """A route that shows or changes the deployment."""
    return Access(AccessKind.KEY, scopes, for_deployment=True)


def live(access: Access) -> Access:
    """A route that is closed to test keys."""
    return replace(access, is_live=True)


def or_user(access: Access, *, in_query: bool = False) -> Access:
    """A route that also serves the holder of a user token."""
    return replace(access, takes_user_token=True, takes_token_in_query=in_query)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who makes a request. `tenant` None: the deployment. `key` None: the API asks for none.

    With a `token` it is the user of it, who has no key and no scopes.
    """

    actor: str
    tenant: TenantId | None
    mode: Mode
    scopes: frozenset[KeyScope]
    key: Key | None = None
    token: UserToken | None = None


ANYONE: Final = Principal(actor=ANONYMOUS, tenant=None, mode=Mode.LIVE, scopes=granted(KeyScope))
"""Whoever reaches an API that asks for no key."""


def principal_of_key(key: Key) -> Principal:
    """Return the holder of a key."""
    return Principal(
        actor=f"key:{key.id}",
        tenant=key.tenant,
        mode=key.mode,
        scopes=granted(key.scopes),
        key=key,
    )


def principal_of_user(token: UserToken) -> Principal:
    """Return the holder of a user token."""
    return Principal(
        actor=USER,
        tenant=token.inbox.tenant,
        mode=token.inbox.mode,
        scopes=frozenset(),
        token=token,
    )


def principal_of(scope: Scope) -> Principal:
    """Return who makes a request that was admitted to a route of the kind KEY."""
    principal: Principal = scope["state"][_PRINCIPAL]
    return principal


def view_of(principal: Principal) -> View:
    """Return which notifications a principal sees."""
    return View(principal.tenant, principal.mode)


def seen_by(principal: Principal, selection: Filter, mark: str = "?") -> Filter:
    """Return a filter that selects only what a principal sees.

    `mark` stands before the names of its fields where a fault is named. Raises InvalidNotification
    if a key asks for those of another mode than its own, and if a key of a tenant asks for those of
    another one.
    """
    mode = principal.mode if selection.mode is None else selection.mode
    if principal.key is not None and mode is not principal.mode:
        raise InvalidNotification(f"{mark}mode", "none, or the mode of the key")
    if principal.tenant is None:
        return replace(selection, view=View(selection.tenant, mode))
    if selection.tenant not in {None, principal.tenant}:
        raise InvalidNotification(f"{mark}tenant", "none, or the tenant of the key")
    return replace(selection, view=view_of(principal))


def scope_missing(*scopes: KeyScope) -> RequestRefused:
    """Return the refusal of a key that has none of these scopes."""
    names = " or ".join(scopes)
    return RequestRefused(ProblemType.SCOPE_MISSING.problem(f"The key lacks the scope {names}."))


def author_of(scope: Scope) -> Author:
    """Return who makes the change of a request, for the audit."""
    return Author(actor=principal_of(scope).actor, request_id=request_id(scope))


def set_principal(scope: Scope, principal: Principal) -> None:
    """Note who makes a request."""
    scope["state"][_PRINCIPAL] = principal

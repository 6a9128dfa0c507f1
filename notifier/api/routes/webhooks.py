"""`/v1/webhooks`: URLs that are called with events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from litestar import Request
from litestar.types import ASGIApp
from uuid_utils.compat import uuid7

from notifier.api.auth.access import Principal, author_of, principal_of
from notifier.api.auth.gate import Gate
from notifier.api.events import documents as event_documents
from notifier.api.http.body import BodyLimit, read_json_body, read_optional_body
from notifier.api.http.deadline import deadline
from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.pages import page_response
from notifier.api.http.problem_types import ProblemType
from notifier.api.http.problems import RequestRefused
from notifier.api.http.public_address import PublicAddress
from notifier.api.http.query import named_tenant, page_of, parse_paging
from notifier.api.http.raw_response import RawResponse, json_response
from notifier.api.http.tenant_names import KNOWN_TENANT_EXPECTED
from notifier.api.http.uuids import canonical_uuid
from notifier.api.responses import Accepted
from notifier.api.rules import ApiRules
from notifier.api.webhooks.checking import checked_events, checked_url
from notifier.api.webhooks.documents import (
    RotateRequest,
    Webhook,
    WebhookChangeRequest,
    WebhookPage,
    WebhookRequest,
    WebhookWithSecret,
)
from notifier.domain import webhooks
from notifier.domain.errors import InvalidNotification, NotifierError
from notifier.domain.events import Event, EventType
from notifier.domain.notification import NotificationId, Status
from notifier.domain.one_line import checked_note
from notifier.domain.tenants import TenantId, tenant_name
from notifier.domain.webhooks import (
    MAX_WEBHOOKS,
    NEEDED_TO_CALL,
    WEBHOOK_QUEUE,
    WebhookScope,
    call_of,
    new_secret,
)
from notifier.ports.acceptor import Acceptor
from notifier.ports.heartbeat import FeatureCheck
from notifier.ports.webhooks import NewWebhook, WebhookChange, WebhookRefusal, WebhookStore

WEBHOOKS: Final = "/v1/webhooks"
MAX_BYTES: Final = 64 * 1024
_TENANT: Final = "?tenant"
_REQUEST: Final = BodyDecoder(WebhookRequest)
_CHANGE: Final = BodyDecoder(WebhookChangeRequest)
_ROTATE: Final = BodyDecoder(RotateRequest)


class WebhookRoutes:
    """Handlers of `/v1/webhooks`. Without events there are no webhooks."""

    def __init__(
        self,
        *,
        store: WebhookStore | None,
        acceptor: Acceptor,
        features: FeatureCheck,
        rules: ApiRules,
        gate: Gate,
        address: PublicAddress,
    ) -> None:
        self._stored = store
        self._acceptor = acceptor
        self._features = features
        self._rules = rules.webhooks
        self._gate = gate
        self._address = address
        self._deadline_s = rules.request_deadline_s
        self._limit = BodyLimit(
            max_bytes=MAX_BYTES, timeout_s=rules.body_timeout_s, detail="A webhook is small."
        )

    async def read_all(self, request: Request[Any, Any, Any]) -> ASGIApp:
        paging = parse_paging(request, names_tenant=True)
        scope = await self._scope(request, paging.get("tenant"))
        async with deadline(self._deadline_s):
            found = await self._store.webhooks(scope)
        page, cursor = page_of(found, lambda each: str(each.id), paging, f"webhooks {scope}")
        return page_response(request, WebhookPage([Webhook.of(each) for each in page], cursor))

    async def read(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = await self._scope(request, named_tenant(request))
        return json_response(Webhook.of(await self._found(request, scope)))

    async def create(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = await self._scope(request, named_tenant(request))
        asked = _REQUEST.decode(await read_json_body(request, self._limit))
        new = NewWebhook(
            url=checked_url(asked.url, self._rules),
            events=checked_events(asked.events, scope),
            note=checked_note(asked.note),
        )
        if refusal := self._features.refusal(NEEDED_TO_CALL):
            raise refusal
        secret = new_secret()
        async with deadline(self._deadline_s):
            stored = await self._store.create(scope, new, secret, author_of(request.scope))
        if isinstance(stored, WebhookRefusal):
            raise _refusal(stored)
        location = f"{self._address.prefix(request.scope)}{WEBHOOKS}/{stored.id}"
        if principal_of(request.scope).tenant is None and scope.tenant is not None:
            location += f"?tenant={tenant_name(scope.tenant)}"
        return json_response(
            WebhookWithSecret.of_new(stored, secret),
            status=201,
            headers=[(b"location", location.encode()), _NO_STORE],
        )

    async def change(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = await self._scope(request, named_tenant(request))
        asked = _CHANGE.decode(await read_json_body(request, self._limit))
        change = WebhookChange(
            url=None if asked.url is msgspec.UNSET else checked_url(asked.url, self._rules),
            events=(None if asked.events is msgspec.UNSET else checked_events(asked.events, scope)),
            note=None if asked.note is msgspec.UNSET else checked_note(asked.note),
            status=None if asked.status is msgspec.UNSET else asked.status,
        )
        async with deadline(self._deadline_s):
            stored = await self._store.change(scope, _id(request), change, author_of(request.scope))
        if stored is None:
            raise _not_found()
        return json_response(Webhook.of(stored))

    async def rotate(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = await self._scope(request, named_tenant(request))
        asked = _ROTATE.decode(await read_optional_body(request, self._limit))
        secret = new_secret()
        async with deadline(self._deadline_s):
            stored = await self._store.rotate(
                scope, _id(request), secret, asked.overlap_s, author_of(request.scope)
            )
        if stored is None:
            raise _not_found()
        return json_response(WebhookWithSecret.of_new(stored, secret), headers=[_NO_STORE])

    async def test(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = await self._scope(request, named_tenant(request))
        found = await self._found(request, scope)
        event = _test_event(found)
        document = msgspec.json.encode(event_documents.Event.of(event))
        call = call_of(found.id, scope, NotificationId(uuid7()), document, self._rules.ttl)
        (reply,) = await self._acceptor.submit([call])
        if isinstance(reply, NotifierError):
            raise reply
        return json_response(Accepted(call.id, Status.QUEUED, str(WEBHOOK_QUEUE)), status=202)

    async def delete(self, request: Request[Any, Any, Any]) -> ASGIApp:
        scope = await self._scope(request, named_tenant(request))
        async with deadline(self._deadline_s):
            is_gone = await self._store.delete(scope, _id(request), author_of(request.scope))
        if not is_gone:
            raise _not_found()
        return RawResponse(204, b"", ())

    @property
    def _store(self) -> WebhookStore:
        if self._stored is None:
            detail = "There are no webhooks: events.enabled is false in the settings."
            raise RequestRefused(ProblemType.NOT_FOUND.problem(detail))
        return self._stored

    async def _found(
        self, request: Request[Any, Any, Any], scope: WebhookScope
    ) -> webhooks.Webhook:
        """Returns the webhook that the path names. Raises RequestRefused (404)."""
        id_ = _id(request)
        async with deadline(self._deadline_s):
            found = await self._store.webhook(scope, id_)
        if found is None:
            raise _not_found()
        return found

    async def _scope(self, request: Request[Any, Any, Any], named: TenantId | None) -> WebhookScope:
        """Returns whose webhooks they are: of the deployment if its key names no tenant.

        Raises InvalidNotification, and RequestRefused (404) where there are no webhooks.
        """
        _ = self._store
        principal = principal_of(request.scope)
        if _is_of_deployment(principal) and named is None:
            return WebhookScope(None, principal.mode)
        return WebhookScope(await self._gate.tenant_of(principal, named, _TENANT), principal.mode)


_NO_STORE: Final = (b"cache-control", b"no-store")


def _is_of_deployment(principal: Principal) -> bool:
    """Whether a deployment key asks. Without keys, those of the default tenant are meant."""
    return principal.tenant is None and principal.key is not None


def _test_event(webhook: webhooks.Webhook) -> Event:
    document = {"webhook": {"id": str(webhook.id)}}
    return Event(
        id=uuid7(),
        type=EventType.WEBHOOK_TEST,
        at=datetime.now(UTC),
        tenant=webhook.scope.tenant,
        mode=webhook.scope.mode,
        document=msgspec.json.encode(document),
    )


def _id(request: Request[Any, Any, Any]) -> UUID:
    id_ = canonical_uuid(str(request.path_params["webhook"]))
    if id_ is None:
        raise _not_found()
    return id_


def _not_found() -> RequestRefused:
    return RequestRefused(ProblemType.NOT_FOUND.problem("There is no webhook with this id."))


def _refusal(refusal: WebhookRefusal) -> Exception:
    match refusal:
        case WebhookRefusal.UNKNOWN_TENANT:
            return InvalidNotification(_TENANT, KNOWN_TENANT_EXPECTED)
        case WebhookRefusal.TOO_MANY:
            detail = f"There are {MAX_WEBHOOKS} webhooks. Delete one first."
            return RequestRefused(ProblemType.IN_USE.problem(detail))

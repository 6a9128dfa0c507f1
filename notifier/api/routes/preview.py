"""`/v1/notifications/preview`: what a submit would send. Nothing is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import Principal, principal_of
from notifier.api.auth.gate import Gate
from notifier.api.http.body import read_json_body, submit_body_limit
from notifier.api.http.deadline import Deadline
from notifier.api.http.in_flight_limit import InFlightLimit
from notifier.api.http.raw_response import json_response
from notifier.api.rules import ApiRules
from notifier.api.submission.content import is_given
from notifier.api.submission.preparing import SubmitPreparation
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.api.submission.validation import Sender, SubmitValidator
from notifier.api.templating.documents import Preview
from notifier.api.templating.filling import Filled, TemplateFilling, Unfilled
from notifier.domain.holds import quiet_until
from notifier.domain.notification import NewNotification
from notifier.domain.recipients import recipient_identity
from notifier.domain.suppressions import SuppressionScope
from notifier.domain.templates import TEXT_PARTS
from notifier.domain.tenants import KnownTenants
from notifier.domain.text_segments import encoding_of
from notifier.ports.controls import QuietHoursStore
from notifier.ports.suppressions import SuppressionFilter, SuppressionStore


class _Obstacles(NamedTuple):
    """The suppression that would end a notification, and the end of quiet hours."""

    suppressed_by: UUID | None
    quiet_until_at: datetime | None


class _Stored(msgspec.Struct):
    """What is shown of a content as it would be stored: also of one with a template."""

    from_: str | None = msgspec.field(name="from", default=None)


class PreviewRoutes:
    """The handler of `/v1/notifications/preview`."""

    def __init__(
        self,
        *,
        filling: TemplateFilling,
        suppressions: SuppressionStore,
        quiet_hours: QuietHoursStore,
        blobs: SubmitBlobs,
        rules: ApiRules,
        gate: Gate,
        preparation: SubmitPreparation,
    ) -> None:
        self._preparation = preparation
        self._gate = gate
        self._blobs = blobs
        self._filling = filling
        self._suppressions = suppressions
        self._quiet_hours = quiet_hours
        self._validator = SubmitValidator(rules)
        self._deadline_s = rules.request_deadline_s
        self._in_flight = InFlightLimit(rules.max_in_flight)
        self._limit = submit_body_limit(rules, rules.max_body_bytes)

    async def preview(self, request: Request[Any, Any, Any]) -> ASGIApp:
        with self._in_flight:
            body = await read_json_body(request, self._limit)
            principal = principal_of(request.scope)
            tenants = await self._gate.tenants(principal)
            sender = Sender(principal.tenant, principal.mode, tenants)
            new = self._validator.validate(body, sender)
            until = Deadline(self._deadline_s)
            if isinstance(new, Unfilled):
                filled = await self._filling.filled(new, until)
            else:
                filled = Filled(new, self._validator.content_of(body), None)
            await self._check_stored(filled.new, principal, tenants)
            await self._preparation.with_fallback(filled.new, tenants, until)
            async with until.of_store():
                obstacles = await self._obstacles(filled.new)
        return json_response(_preview(filled, obstacles))

    async def _check_stored(
        self,
        new: NewNotification,
        principal: Principal,
        tenants: KnownTenants,
    ) -> None:
        """Check what a submit needs to exist: its tenant, and the blobs of its content."""
        if principal.tenant is None:
            await self._gate.tenant_of(principal, new.tenant, "tenant")
        blobs = [use for use in new.blobs if use.data is None]
        faults = await self._blobs.keep([msgspec.structs.replace(new, blobs=blobs)], tenants)
        if faults:
            raise faults[new.id]

    async def _obstacles(self, new: NewNotification) -> _Obstacles:
        now = datetime.now(UTC)
        selection = SuppressionFilter(
            scope=SuppressionScope(new.tenant, new.mode),
            channel=(new.channel,),
            recipient=(recipient_identity(new.recipient),),
            topic=("", new.topic or ""),
        )
        page = await self._suppressions.suppressions(selection)
        valid = [
            each for each in page.suppressions if each.expires_at is None or each.expires_at > now
        ]
        suppression = min(valid, key=lambda each: each.topic or "", default=None)
        hours = (await self._quiet_hours.quiet_hours()).get(new.tenant)
        due_at = now + (new.delay or timedelta())
        return _Obstacles(
            suppressed_by=None if suppression is None else suppression.id,
            quiet_until_at=quiet_until(hours, new.queue.priority, new.content, due_at),
        )


def _preview(filled: Filled, obstacles: _Obstacles) -> Preview:
    new, content, locale = filled
    stored = msgspec.json.decode(new.content, type=_Stored)
    texts = [text for name in TEXT_PARTS if (text := getattr(content, name)) is not None]
    data = content.data if is_given(content.data) else None
    is_text = new.segments is not None
    return Preview(
        channel=new.channel,
        recipient=new.recipient,
        template=new.template,
        locale=locale,
        from_=stored.from_,
        subject=content.subject,
        body=content.body,
        html=content.html,
        data=data,
        headers=content.headers,
        size_bytes=sum(len(text.encode()) for text in texts) + len(bytes(data or msgspec.Raw())),
        segments=new.segments,
        encoding=encoding_of(content.body or "") if is_text else None,
        suppressed_by=obstacles.suppressed_by,
        quiet_until_at=obstacles.quiet_until_at,
    )

"""Checks the request of a schedule: all that is wrong with it, and with its notification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.field_by_field import DecodedFields
from notifier.api.schedules.documents import ScheduleRequest
from notifier.api.submission.idempotency import canonical_json
from notifier.api.submission.stored_fields import fields_of
from notifier.domain.blobs import BlobId, blobs_of
from notifier.domain.cron import Cron
from notifier.domain.errors import InvalidNotification
from notifier.domain.one_line import checked_note
from notifier.domain.schedules import NewSchedule
from notifier.domain.tenants import TENANT_NAME_EXPECTED, TenantId, tenant_id
from notifier.domain.time_zones import TIME_ZONE_EXPECTED, is_time_zone

NOTIFICATION: Final = "notification"
TENANT_FIELD: Final = f"{NOTIFICATION}.tenant"
_REQUEST: Final = BodyDecoder(ScheduleRequest)
_NOTHING: Final = {"cron": "* * * * *", "time_zone": "UTC", NOTIFICATION: msgspec.Raw()}
"""Stands for required fields that are wrong."""
_NOT_HERE: Final = {
    "send_at": "no send_at: the schedule says when it is sent",
    "expires_at": "ttl_s in its place, which counts from each instant",
    "idempotency_key": "no idempotency_key: each instant has one of its own",
}
_NULL: Final = b"null"
_NOTHING_GIVEN: Final = msgspec.Raw(_NULL)
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class CheckedRequest(NamedTuple):
    """A request, and what is wrong with its own fields.

    `notification` has neither the tenant, which is `named`, nor what no schedule takes. It is not
    checked yet, and empty if it is missing.
    """

    request: ScheduleRequest
    notification: bytes
    named: TenantId | None
    faults: Sequence[InvalidNotification]

    def would_submit(self, stored: bytes) -> bool:
        """Whether the notification is the stored one, however it is written."""
        try:
            return canonical_json(self.notification) == stored
        except (ValueError, OverflowError, RecursionError):
            return False

    def schedule(self) -> NewSchedule:
        """Return the schedule, once its notification is checked, too."""
        notification = canonical_json(self.notification)
        document: dict[str, Any] = msgspec.json.decode(notification)
        return NewSchedule(
            cron=Cron.parse(self.request.cron, self.request.time_zone),
            notification=notification,
            needs=fields_of(document),
            blobs=[
                BlobId(each)
                for submit in (document, document.get("fallback") or {})
                for each in blobs_of(submit.get("content") or {})
            ],
            note=self.request.note,
            is_paused=self.request.paused,
        )


def checked_request(body: bytes) -> CheckedRequest:
    """Check a request but for its notification.

    Raises InvalidNotification for a body that is no object, RequestRefused for one that is not
    JSON.
    """
    request = _REQUEST.decode_or_find_faults(body)
    faults: list[InvalidNotification] = []
    if isinstance(request, DecodedFields):
        faults += request.faults
        request = ScheduleRequest(**{**_NOTHING, **request.values})
    faults += _own_faults(request)
    try:
        members = _MEMBERS.decode(request.notification) if request.notification else {}
    except (ValueError, RecursionError):  # no object: the check of the notification says so
        return CheckedRequest(request, bytes(request.notification), None, faults)
    named = None
    try:
        named = _tenant(members)
    except ValueError:
        faults.append(InvalidNotification(TENANT_FIELD, TENANT_NAME_EXPECTED))
    faults += _not_here(members)
    notification = msgspec.json.encode(members) if request.notification else b""
    return CheckedRequest(request, notification, named, faults)


def of_notification(error: InvalidNotification) -> Iterator[InvalidNotification]:
    """Yield the faults of a notification as those of the request that it stands in."""
    for fault in (error, *error.others):
        field = NOTIFICATION if fault.field == "$" else f"{NOTIFICATION}.{fault.field}"
        yield InvalidNotification(field, fault.expected, detail=fault.detail)


def _own_faults(request: ScheduleRequest) -> Iterator[InvalidNotification]:
    try:
        Cron.parse(request.cron, "UTC")
    except ValueError as error:
        yield InvalidNotification("cron", str(error))
    if not is_time_zone(request.time_zone):
        yield InvalidNotification("time_zone", TIME_ZONE_EXPECTED)
    try:
        checked_note(request.note)
    except InvalidNotification as fault:
        yield fault


def _tenant(members: dict[str, msgspec.Raw]) -> TenantId | None:
    """Remove the tenant; return it, None if there is none. Raises ValueError for a wrong one."""
    raw = members.pop("tenant", None)
    if raw is None or bytes(raw) == _NULL:
        return None
    return tenant_id(msgspec.json.decode(raw, type=str))


def _not_here(members: dict[str, msgspec.Raw]) -> Iterator[InvalidNotification]:
    """Remove what a schedule does not take, and yield the faults."""
    for name, expected in _NOT_HERE.items():
        if bytes(members.pop(name, _NOTHING_GIVEN)) != _NULL:
            yield InvalidNotification(f"{NOTIFICATION}.{name}", expected)

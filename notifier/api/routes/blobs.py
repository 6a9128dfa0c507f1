"""`/v1/blobs`: uploads a file, or a whole mail, that many notifications may refer to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import principal_of
from notifier.api.auth.gate import Gate
from notifier.api.http.body import media_type_of, read_body, submit_body_limit
from notifier.api.http.held_bytes import HeldBytes
from notifier.api.http.in_flight_limit import InFlightLimit
from notifier.api.http.query import named_tenant
from notifier.api.http.raw_response import json_response
from notifier.api.requests import WHOLE_BODY
from notifier.api.responses import Blob
from notifier.api.rules import AddressKind, ApiRules
from notifier.api.submission.addresses import checked_recipient
from notifier.api.submission.submit_blobs import SubmitBlobs
from notifier.domain.errors import InvalidNotification
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.domain.whole_mail import check_mail

BLOBS: Final = "/v1/blobs"
MAIL_TYPE: Final = "message/rfc822"
_UNKNOWN_TYPE: Final = "application/octet-stream"
_FREE_BYTES: Final = 64 * 1024
_MAX_TYPE_LENGTH: Final = 200
_CREATED: Final = 201
_OK: Final = 200


class BlobRoutes:
    """Handlers of `/v1/blobs`."""

    def __init__(self, *, blobs: SubmitBlobs, rules: ApiRules, held: HeldBytes, gate: Gate) -> None:
        self._gate = gate
        self._blobs = blobs
        self._held = held
        self._in_flight = InFlightLimit(rules.max_in_flight)
        self._limit = replace(
            submit_body_limit(rules, rules.max_attachment_bytes), free_bytes=_FREE_BYTES
        )

    async def upload(self, request: Request[Any, Any, Any]) -> ASGIApp:
        tenant = await self._tenant(request)
        content_type = request.headers.get("content-type", _UNKNOWN_TYPE)[:_MAX_TYPE_LENGTH]
        is_mail = media_type_of(request) == MAIL_TYPE
        with self._in_flight, self._held.request() as held:
            data = await read_body(request, self._limit, held)
            senders = await _senders_of_mail(data) if is_mail else ()
            blob, is_new = await self._blobs.put(tenant, data, is_mail=is_mail, senders=senders)
        document = Blob(id=blob, size_bytes=len(data), content_type=content_type)
        return json_response(document, status=_CREATED if is_new else _OK)

    async def _tenant(self, request: Request[Any, Any, Any]) -> TenantId:
        """Returns whose file it is: the key's tenant, or that which a deployment key names."""
        principal = principal_of(request.scope)
        named = named_tenant(request)
        if named is None and principal.tenant is None:
            named = DEFAULT_TENANT  # as of a submit that names none
        return await self._gate.tenant_of(principal, named, "?tenant")


async def _senders_of_mail(data: bytes) -> Sequence[str]:
    try:
        senders = await asyncio.to_thread(check_mail, data)
    except ValueError as error:
        raise InvalidNotification(WHOLE_BODY, str(error)) from error
    try:
        return [checked_recipient(AddressKind.EMAIL, sender) for sender in senders]
    except InvalidNotification as error:
        raise InvalidNotification(WHOLE_BODY, f"in From or Sender {error.expected}") from error

"""`/v1/failures`: a deprecated name of the list of failed notifications."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import principal_of, seen_by
from notifier.api.http.deadline import deadline
from notifier.api.http.pages import page_response
from notifier.api.http.public_address import PublicAddress
from notifier.api.http.query import ListQuery
from notifier.api.routes.notifications import FAILURE_FILTERS, NOTIFICATIONS, notification_page
from notifier.api.rules import ApiRules
from notifier.domain.notification import Status
from notifier.ports.queries import Filter, Reader

FAILURES: Final = "/v1/failures"
_DEPRECATED_AT: Final = datetime(2026, 12, 1, tzinfo=UTC)
_DEPRECATION: Final = f"@{_DEPRECATED_AT.timestamp():.0f}".encode()
"""As a date of RFC 9651; see RFC 9745."""


class FailureRoutes:
    """Handlers of `/v1/failures`."""

    def __init__(self, *, reader: Reader, rules: ApiRules, address: PublicAddress) -> None:
        self._reader = reader
        self._address = address
        self._deadline_s = rules.request_deadline_s
        failed = Filter(status=(Status.FAILED,))
        self._query = ListQuery(*FAILURE_FILTERS, channels=rules.submit_channels, fixed=failed)

    async def read_page(self, request: Request[Any, Any, Any]) -> ASGIApp:
        selection = seen_by(principal_of(request.scope), self._query.parse(request))
        async with deadline(self._deadline_s):
            page = await self._reader.notifications(selection)
        prefix = self._address.prefix(request.scope)
        links = (
            f'<{prefix}{NOTIFICATIONS}?status=failed>; rel="successor-version", '
            f'<{prefix}/docs#listFailures>; rel="deprecation"; type="text/html"'
        )
        headers = [(b"deprecation", _DEPRECATION), (b"link", links.encode())]
        return page_response(request, notification_page(page, selection), headers=headers)

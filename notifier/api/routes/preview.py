"""`/v1/notifications/preview`: what a submit would send. Nothing is stored."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request
from litestar.types import ASGIApp

from notifier.api.auth.access import principal_of
from notifier.api.http.body import read_json_body, submit_body_limit
from notifier.api.http.deadline import deadline
from notifier.api.http.in_flight_limit import InFlightLimit
from notifier.api.http.raw_response import json_response
from notifier.api.requests import Content
from notifier.api.rules import ApiRules
from notifier.api.submission.content import is_given
from notifier.api.submission.validation import Sender, SubmitValidator
from notifier.api.templating.documents import Preview
from notifier.api.templating.filling import TemplateFilling, Unfilled
from notifier.domain.notification import NewNotification
from notifier.domain.templates import TEXT_PARTS
from notifier.domain.text_segments import encoding_of


class PreviewRoutes:
    """The handler of `/v1/notifications/preview`."""

    def __init__(self, *, filling: TemplateFilling, rules: ApiRules) -> None:
        self._filling = filling
        self._validator = SubmitValidator(rules)
        self._deadline_s = rules.request_deadline_s
        self._in_flight = InFlightLimit(rules.max_in_flight)
        self._limit = submit_body_limit(rules, rules.max_body_bytes)

    async def preview(self, request: Request[Any, Any, Any]) -> ASGIApp:
        with self._in_flight:
            body = await read_json_body(request, self._limit)
            principal = principal_of(request.scope)
            new = self._validator.validate(body, Sender(principal.tenant, principal.mode))
            if not isinstance(new, Unfilled):
                return json_response(_preview(new, self._validator.content_of(body), None))
            async with deadline(self._deadline_s):
                filled = await self._filling.filled(new)
        return json_response(_preview(filled.new, filled.content, filled.locale))


def _preview(new: NewNotification, content: Content, locale: str | None) -> Preview:
    texts = [text for name in TEXT_PARTS if (text := getattr(content, name)) is not None]
    data = content.data if is_given(content.data) else None
    is_text = new.segments is not None
    return Preview(
        channel=new.channel,
        recipient=new.recipient,
        template=new.template,
        locale=locale,
        from_=content.from_,
        subject=content.subject,
        body=content.body,
        html=content.html,
        data=data,
        headers=content.headers,
        size_bytes=sum(len(text.encode()) for text in texts) + len(bytes(data or msgspec.Raw())),
        segments=new.segments,
        encoding=encoding_of(content.body or "") if is_text else None,
    )

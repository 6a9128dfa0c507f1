"""The sandbox as an SMS provider (Twilio's API) and as a push provider (FCM's HTTP v1)."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Final
from uuid import uuid4

import msgspec
from aiohttp import web

from notifier.sandbox.fake_provider import Answer, FakeProvider
from notifier.sandbox.fates import Kind

_TWILIO_ERRORS: Final = {
    400: (21211, "Invalid 'To' Phone Number"),
    401: (20003, "Authenticate"),
    403: (20003, "Permission denied"),
    404: (20404, "The requested resource was not found"),
    429: (20429, "Too many requests"),
    500: (20500, "Internal server error"),
    503: (20503, "Service unavailable"),
}
_FCM_ERRORS: Final = {
    400: ("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    401: ("UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
    403: ("PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
    404: ("NOT_FOUND", "UNREGISTERED"),
    429: ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    500: ("INTERNAL", "INTERNAL"),
    503: ("UNAVAILABLE", "UNAVAILABLE"),
}
_FCM_TYPE: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_TWILIO_DOCS: Final = "https://www.twilio.com/docs/errors/"


def add_provider_routes(app: web.Application, desk: FakeProvider) -> None:
    """Serve the two real paths."""

    async def sms(request: web.Request) -> web.StreamResponse:
        form = await request.post()
        to = form.get("To")
        if not isinstance(to, str) or not to:
            return _json(400, _twilio_error(400, 21604, "A 'To' phone number is required."))
        answer = _take(desk, "sms", to, request)
        return await _carry_out(request, answer, lambda: _twilio_body(answer.status, form))

    async def push(request: web.Request) -> web.StreamResponse:
        token = _token(await request.read())
        if not token:
            return _json(400, _fcm_error(400, "Recipient of the message is not set."))
        answer = _take(desk, "push", token, request)
        project = request.match_info["project"]
        return await _carry_out(request, answer, lambda: _fcm_body(answer.status, project))

    app.router.add_post("/2010-04-01/Accounts/{account}/Messages.json", sms)
    app.router.add_post("/v1/projects/{project}/messages:send", push)


def _take(desk: FakeProvider, channel: str, recipient: str, request: web.Request) -> Answer:
    claim = request.headers.get("Notifier-Claim", "")
    return desk.take(
        channel,
        recipient,
        request.headers.get("Idempotency-Key"),
        int(claim) if claim.isascii() and claim.isdigit() else None,
        _password(request.headers.get("Authorization", "")),
    )


def _password(authorization: str) -> str | None:
    """The password of HTTP Basic (RFC 7617), None without one."""
    try:
        pair = b64decode(authorization.partition(" ")[2], validate=True).decode()
    except ValueError:
        return None
    return pair.partition(":")[2]


async def _carry_out(
    request: web.Request, answer: Answer, body: Callable[[], object]
) -> web.StreamResponse:
    if answer.latency_s:
        await asyncio.sleep(answer.latency_s)
    if answer.kind is Kind.HANG:
        await asyncio.sleep(answer.hang_s)
    if answer.kind in (Kind.HANG, Kind.CUT):
        if request.transport is not None:
            request.transport.close()
        return web.Response()  # goes nowhere: the connection is closed
    return _json(answer.status, body(), answer.retry_after)


def _twilio_body(status: int, form: Mapping[str, object]) -> object:
    if status >= 400:  # noqa: PLR2004 RFC 9110 15, errors
        return _twilio_error(status, *_TWILIO_ERRORS.get(status, (20500, "Error as asked")))
    return {
        "sid": f"SM{uuid4().hex}",
        "status": "queued",
        "to": form.get("To"),
        "from": form.get("From"),
        "body": form.get("Body"),
        "error_code": None,
        "error_message": None,
    }


def _twilio_error(status: int, code: int, message: str) -> object:
    return {
        "code": code,
        "message": message,
        "more_info": f"{_TWILIO_DOCS}{code}",
        "status": status,
    }


def _fcm_body(status: int, project: str) -> object:
    if status >= 400:  # noqa: PLR2004 RFC 9110 15, errors
        return _fcm_error(status, "Answered as asked.")
    return {"name": f"projects/{project}/messages/{uuid4().hex}"}


def _fcm_error(status: int, message: str) -> object:
    name, code = _FCM_ERRORS.get(status, ("INTERNAL", "INTERNAL"))
    details = [{"@type": _FCM_TYPE, "errorCode": code}]
    return {"error": {"code": status, "message": message, "status": name, "details": details}}


def _token(body: bytes) -> str | None:
    """The token of `{"message": {"token": ...}}`, or None."""
    try:
        document = msgspec.json.decode(body)
        token = document["message"]["token"]
    except (msgspec.DecodeError, UnicodeError, KeyError, TypeError, IndexError):
        return None
    return token if isinstance(token, str) else None


def _json(status: int, body: object, retry_after: int | None = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return web.Response(
        status=status,
        body=msgspec.json.encode(body),
        content_type="application/json",
        headers=headers,
    )

"""The HTTP server of the sandbox: an SMS provider (Twilio's API) and a push provider (FCM v1)."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Mapping
from typing import Final
from uuid import uuid4

import msgspec
from aiohttp import web

from notifier.domain.fates import ResponseKind
from notifier.sandbox.fake_provider import FakeProvider, Response

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


class ProviderRoutes:
    """Handlers of the paths of Twilio and FCM."""

    def __init__(self, provider: FakeProvider) -> None:
        self._provider = provider

    def add_to(self, app: web.Application) -> None:
        """Registers the handlers."""
        app.router.add_post("/2010-04-01/Accounts/{account}/Messages.json", self._receive_sms)
        app.router.add_post("/v1/projects/{project}/messages:send", self._receive_push)

    async def _receive_sms(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        to = form.get("To")
        if not isinstance(to, str) or not to:
            return _json(400, _twilio_error(400, 21604, "A 'To' phone number is required."))
        response, sid = self._receive("sms", to, request), f"SM{uuid4().hex}"
        answer = await _respond(request, response, _twilio_body(response.status, form, sid))
        if response.kind is ResponseKind.ACCEPT:
            self._provider.took("sms", to, sid)
        return answer

    async def _receive_push(self, request: web.Request) -> web.StreamResponse:
        token = _token(await request.read())
        if not token:
            return _json(400, _fcm_error(400, "Recipient of the message is not set."))
        response = self._receive("push", token, request)
        name = f"projects/{request.match_info['project']}/messages/{uuid4().hex}"
        answer = await _respond(request, response, _fcm_body(response.status, name))
        if response.kind is ResponseKind.ACCEPT:
            self._provider.took("push", token, name)
        return answer

    def _receive(self, channel: str, recipient: str, request: web.Request) -> Response:
        claim = request.headers.get("Notifier-Claim", "")
        return self._provider.receive(
            channel,
            recipient,
            request.headers.get("Idempotency-Key"),
            int(claim) if claim.isascii() and claim.isdigit() else None,
            _password(request.headers.get("Authorization", "")),
        )


def _password(authorization: str) -> str | None:
    """Returns the password of HTTP Basic (RFC 7617), or None."""
    try:
        credentials = b64decode(authorization.partition(" ")[2], validate=True).decode()
    except ValueError:
        return None
    return credentials.partition(":")[2]


async def _respond(request: web.Request, response: Response, body: object) -> web.StreamResponse:
    """Waits as the response demands, then sends the body or closes the connection."""
    if response.latency_s:
        await asyncio.sleep(response.latency_s)
    if response.kind is ResponseKind.HANG:
        await asyncio.sleep(response.hang_s)
    if response.kind in (ResponseKind.HANG, ResponseKind.CUT):
        if request.transport is not None:
            request.transport.close()
        return web.Response()  # not sent: the connection is closed
    return _json(response.status, body, response.retry_after)


def _twilio_body(status: int, form: Mapping[str, object], sid: str) -> object:
    if status >= 400:  # noqa: PLR2004 RFC 9110 15, errors
        return _twilio_error(status, *_TWILIO_ERRORS.get(status, (20500, "Configured error")))
    return {
        "sid": sid,
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


def _fcm_body(status: int, message: str) -> object:
    if status >= 400:  # noqa: PLR2004 RFC 9110 15, errors
        return _fcm_error(status, "Configured error.")
    return {"name": message}


def _fcm_error(status: int, message: str) -> object:
    name, code = _FCM_ERRORS.get(status, ("INTERNAL", "INTERNAL"))
    details = [{"@type": _FCM_TYPE, "errorCode": code}]
    return {"error": {"code": status, "message": message, "status": name, "details": details}}


def _token(body: bytes) -> str | None:
    """Returns the token of `{"message": {"token": ...}}`, or None."""
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

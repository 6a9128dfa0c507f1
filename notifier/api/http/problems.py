"""Translates exceptions into RFC 9457 problems, in one table.

The text of an unexpected exception never reaches a caller.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from notifier.api.requests import WHOLE_BODY
from notifier.api.responses import BatchRefusal, Problem
from notifier.domain.errors import (
    DomainError,
    InfrastructureError,
    InvalidNotification,
    NotFound,
    Overloaded,
    StoreRejected,
)

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
PREFIX: Final = "urn:notifier:problem:"
MAX_FIELD_LENGTH: Final = 200
MAX_DETAIL_LENGTH: Final = 400
_LOGGED_FRAMES: Final = 8
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Definition:
    slug: str
    title: str
    status: int


class ProblemType(Enum):
    """Every problem type of the API. The slugs are a contract; titles may change."""

    MALFORMED_JSON = _Definition("malformed-json", "The body is not valid JSON", 400)
    INVALID_FIELD = _Definition("invalid-field", "A field is wrong", 400)
    UNSTORABLE = _Definition("unstorable", "The database rejected this notification", 400)
    NOTHING_ACCEPTED = _Definition("nothing-accepted", "No item of the batch was accepted", 400)
    BAD_REQUEST = _Definition("bad-request", "The request is malformed", 400)
    UNSUPPORTED_HEADER = _Definition(
        "unsupported-header", "This version cannot do what a header asks for", 400
    )
    NOT_FOUND = _Definition("not-found", "Not found", 404)
    METHOD_NOT_ALLOWED = _Definition(
        "method-not-allowed", "This path does not support this method", 405
    )
    HEAD_TIMEOUT = _Definition("head-timeout", "The head of the request took too long", 408)
    BODY_TIMEOUT = _Definition("body-timeout", "The body took too long to arrive", 408)
    BODY_TOO_LARGE = _Definition("body-too-large", "The body is too large", 413)
    UNSUPPORTED_MEDIA_TYPE = _Definition(
        "unsupported-media-type", "The type or the encoding of the body is not supported", 415
    )
    HEAD_TOO_LARGE = _Definition("head-too-large", "The head of the request is too large", 431)
    INTERNAL_ERROR = _Definition("internal-error", "Internal error", 500)
    STORE_UNAVAILABLE = _Definition("store-unavailable", "The database is not available", 503)
    OVERLOADED = _Definition("overloaded", "Too much work is waiting", 503)
    NOT_READY = _Definition("not-ready", "This process is not ready", 503)

    @property
    def status(self) -> int:
        """The HTTP status of the response."""
        return self.value.status

    def problem(
        self, detail: str, *, field: str | None = None, expected: str | None = None
    ) -> Problem:
        """Makes a problem of this type.

        `detail` and `field` are cut to their maximum length and made encodable as UTF-8.
        """
        return Problem(
            type=PREFIX + self.value.slug,
            title=self.value.title,
            status=self.value.status,
            detail=_printable(detail, MAX_DETAIL_LENGTH),
            field=None if field is None else _printable(field, MAX_FIELD_LENGTH),
            expected=expected,
        )


class RequestRefused(DomainError):
    """Ends a request with this problem and these additional headers."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = headers or {}


def problem_of(error: Exception) -> Problem:
    """Returns the problem that describes an exception to the caller."""
    return _as_refusal(error).problem


def batch_refusal(error: Exception) -> BatchRefusal:
    """Returns the result of a batch item that was refused for this exception."""
    return BatchRefusal(problem=problem_of(error))


def handle_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for every exception. A 500 is logged."""
    refusal = _as_refusal(error)
    if refusal.problem.status == ProblemType.INTERNAL_ERROR.status:
        _log_unexpected(request, error)
    return Response(
        content=msgspec.json.encode(refusal.problem),
        status_code=refusal.problem.status,
        headers=dict(refusal.headers),
        media_type=PROBLEM_MEDIA_TYPE,
    )


def _as_refusal(error: Exception) -> RequestRefused:
    match error:
        case RequestRefused():
            return error
        case InvalidNotification():
            return RequestRefused(
                ProblemType.INVALID_FIELD.problem(
                    str(error), field=error.field, expected=error.expected
                )
            )
        case StoreRejected():
            return RequestRefused(
                ProblemType.UNSTORABLE.problem(
                    "The database cannot store a value in it. Do not repeat the same request.",
                    field=WHOLE_BODY,
                    expected="text that a database can store",
                )
            )
        case NotFound():
            return RequestRefused(
                ProblemType.NOT_FOUND.problem("There is no notification with this id.")
            )
        case InfrastructureError():
            return _outage(error)
        case HTTPException():
            return _http_refusal(error)
        case _:
            return _internal_error()


def _outage(error: InfrastructureError) -> RequestRefused:
    if isinstance(error, Overloaded):
        retry_after_s = max(1, math.ceil(error.retry_after_s))
        return RequestRefused(
            ProblemType.OVERLOADED.problem("Repeat the request after the time in Retry-After."),
            {"Retry-After": str(retry_after_s)},
        )
    detail = "The database did not respond in time. A change may or may not have been stored."
    return RequestRefused(ProblemType.STORE_UNAVAILABLE.problem(detail), {"Retry-After": "1"})


def _http_refusal(error: HTTPException) -> RequestRefused:
    match error.status_code:
        case 404:
            return RequestRefused(
                ProblemType.NOT_FOUND.problem("No such path. See /docs for all of them.")
            )
        case 405:
            allow = (error.headers or {}).get("allow", "")
            return RequestRefused(
                ProblemType.METHOD_NOT_ALLOWED.problem(f"Allowed methods: {allow}."),
                {"Allow": allow},
            )
        case status if status < ProblemType.INTERNAL_ERROR.status:
            return RequestRefused(
                ProblemType.BAD_REQUEST.problem("The request line or a header is malformed.")
            )
        case _:
            return _internal_error()


def _internal_error() -> RequestRefused:
    return RequestRefused(
        ProblemType.INTERNAL_ERROR.problem("The error was logged. Repeating the request may help.")
    )


def _log_unexpected(request: Request[Any, Any, Any], error: Exception) -> None:
    # The exception's text stays out of the log: messages of drivers quote values.
    frames = traceback.extract_tb(error.__traceback__)
    log.error(
        "request_failed",
        error=type(error).__qualname__,
        method=request.method,
        route=request.scope.get("path_template", ""),
        frames=[
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-_LOGGED_FRAMES:]
        ],
    )


def _printable(text: str, max_length: int) -> str:
    return text[:max_length].encode("utf-8", "backslashreplace").decode("utf-8")

"""Translates exceptions into RFC 9457 problems.

The text of an unexpected exception never reaches a caller.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from notifier.api.http.problem_types import MAX_ERRORS, ProblemType, field_error
from notifier.api.http.raw_response import added_headers
from notifier.api.http.request_id import HEADER, request_id, request_urn
from notifier.api.requests import WHOLE_BODY
from notifier.api.responses import BatchRefusal, Problem
from notifier.domain.errors import (
    DomainError,
    FeatureUnavailable,
    IdempotencyKeyInFlight,
    IdempotencyKeyReused,
    InfrastructureError,
    InvalidNotification,
    NotFound,
    Overloaded,
    RendererUnavailable,
    StoreRejected,
)

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
_LOGGED_FRAMES: Final = 8
log = structlog.get_logger(__name__)


class RequestRefused(DomainError):
    """Ends a request with this problem and these additional headers."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = headers or {}


def problem_of(error: Exception) -> Problem:
    """Returns the problem that describes an exception to the caller."""
    return as_refusal(error).problem


def batch_refusal(error: Exception) -> BatchRefusal:
    """Returns the result of a batch item that was refused for this exception."""
    return BatchRefusal(problem=problem_of(error))


def handle_exception(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for every exception. A 500 is logged."""
    refusal = as_refusal(error)
    if refusal.problem.status == ProblemType.INTERNAL_ERROR.status:
        _log_unexpected(request, error)
    urn = request_urn(request_id(request.scope))
    return Response(
        content=msgspec.json.encode(msgspec.structs.replace(refusal.problem, instance=urn)),
        status_code=refusal.problem.status,
        headers={
            **{name.decode(): value.decode() for name, value in added_headers(request.scope)},
            **refusal.headers,
            HEADER: request_id(request.scope),
        },
        media_type=PROBLEM_MEDIA_TYPE,
    )


def as_refusal(error: Exception) -> RequestRefused:
    """Returns the refusal that describes an exception to the caller."""
    match error:
        case RequestRefused():
            return error
        case InvalidNotification():
            return RequestRefused(_invalid_fields(error))
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
        case IdempotencyKeyReused():
            return RequestRefused(
                ProblemType.KEY_REUSED.problem("Another body was accepted with this key.")
            )
        case IdempotencyKeyInFlight():
            return RequestRefused(
                ProblemType.KEY_IN_FLIGHT.problem("Repeat the same request later."),
                {"Retry-After": "1"},
            )
        case FeatureUnavailable():
            return RequestRefused(
                ProblemType.FEATURE_UNAVAILABLE.problem(f"{error}."), {"Retry-After": "10"}
            )
        case InfrastructureError():
            return _outage(error)
        case HTTPException():
            return _http_refusal(error)
        case _:
            return _internal_error()


def _invalid_fields(error: InvalidNotification) -> Problem:
    faults = [error, *error.others][:MAX_ERRORS]
    count = len(faults)
    problem = ProblemType.INVALID_FIELD.problem(
        str(error) if count == 1 else f"{count} fields are wrong."
    )
    errors = [field_error(fault.field, fault.expected, fault.detail) for fault in faults]
    return msgspec.structs.replace(problem, errors=errors)


def _outage(error: InfrastructureError) -> RequestRefused:
    if isinstance(error, Overloaded):
        retry_after_s = max(1, math.ceil(error.retry_after_s))
        is_renderer = isinstance(error, RendererUnavailable)
        cause = "The renderer of templates is busy or does not run. " if is_renderer else ""
        return RequestRefused(
            ProblemType.OVERLOADED.problem(
                f"{cause}Repeat the request after the time in Retry-After."
            ),
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
        request_id=request_id(request.scope),
        method=request.method,
        route=request.scope.get("path_template", ""),
        frames=[
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-_LOGGED_FRAMES:]
        ],
    )

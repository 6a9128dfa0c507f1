"""From errors to problems: one table. Nothing of an exception's own text reaches a caller."""

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

PROBLEM_TYPE: Final = "application/problem+json"
PREFIX: Final = "urn:notifier:problem:"
MAX_PATH: Final = 200
MAX_DETAIL: Final = 400
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Kind:
    slug: str
    title: str
    status: int


class Kind(Enum):
    """Every kind of problem there is. The slugs are a contract."""

    MALFORMED = _Kind("malformed-json", "The body is not the JSON that was expected", 400)
    INVALID = _Kind("invalid-field", "A field is wrong", 400)
    UNSTORABLE = _Kind("unstorable", "The database refused this notification", 400)
    NOTHING_ACCEPTED = _Kind("nothing-accepted", "No item of the batch was accepted", 400)
    BAD_REQUEST = _Kind("bad-request", "The request cannot be understood", 400)
    NOT_FOUND = _Kind("not-found", "There is nothing here", 404)
    WRONG_METHOD = _Kind("method-not-allowed", "This method is not for this address", 405)
    TOO_SLOW = _Kind("body-timeout", "The body took too long to arrive", 408)
    TOO_LARGE = _Kind("body-too-large", "The body is too large", 413)
    WRONG_TYPE = _Kind("unsupported-media-type", "The body is of another type or encoding", 415)
    INTERNAL = _Kind("internal-error", "Something went wrong on our side", 500)
    STORE_AWAY = _Kind("store-unavailable", "The database is not available", 503)
    OVERLOADED = _Kind("overloaded", "More work than can be taken now", 503)
    NOT_READY = _Kind("not-ready", "This process is not ready", 503)

    @property
    def status(self) -> int:
        """The HTTP status it is answered with."""
        return self.value.status

    def problem(
        self, detail: str, *, field: str | None = None, expected: str | None = None
    ) -> Problem:
        """Make a problem of this kind. Also paths that hold what UTF-8 cannot are shown."""
        return Problem(
            type=PREFIX + self.value.slug,
            title=self.value.title,
            status=self.value.status,
            detail=_shown(detail, MAX_DETAIL),
            field=None if field is None else _shown(field, MAX_PATH),
            expected=expected,
        )


class Refusal(DomainError):
    """A request that goes no further, with the problem that says why."""

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class _Told:
    problem: Problem
    headers: Mapping[str, str]


def problem_of(error: Exception) -> Problem:
    """Say what a caller is told about an error."""
    return _tell(error).problem


def answer_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    told = _tell(error)
    if told.problem.status == Kind.INTERNAL.status:
        _log_surprise(request, error)
    return problem_response(told.problem, told.headers)


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Put a problem into an answer."""
    return Response(
        content=msgspec.json.encode(problem),
        status_code=problem.status,
        headers=dict(headers or {}),
        media_type=PROBLEM_TYPE,
    )


def _tell(error: Exception) -> _Told:
    match error:
        case Refusal():
            return _Told(error.problem, error.headers)
        case InvalidNotification():
            return _Told(
                Kind.INVALID.problem(str(error), field=error.field, expected=error.expected), {}
            )
        case StoreRejected():
            detail = "The database cannot hold what is in it; the same request will not help."
            return _Told(
                Kind.UNSTORABLE.problem(
                    detail, field=WHOLE_BODY, expected="text a database can hold"
                ),
                {},
            )
        case NotFound():
            return _Told(Kind.NOT_FOUND.problem("There is no notification with this id."), {})
        case InfrastructureError():
            return _tell_outage(error)
        case HTTPException():
            return _tell_http(error)
        case _:
            return _Told(Kind.INTERNAL.problem("It was logged. Trying again may help."), {})


def _tell_outage(error: InfrastructureError) -> _Told:
    if isinstance(error, Overloaded):
        wait = {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}
        return _Told(Kind.OVERLOADED.problem("Come back after the time in Retry-After."), wait)
    detail = "It did not answer in time. Whether what was asked for is stored is not known."
    return _Told(Kind.STORE_AWAY.problem(detail), {"Retry-After": "1"})


def _tell_http(error: HTTPException) -> _Told:
    match error.status_code:
        case 404:
            return _Told(Kind.NOT_FOUND.problem("No such address. /docs lists all."), {})
        case 405:
            allow = (error.headers or {}).get("allow", "")
            detail = f"Allowed are: {allow}."
            return _Told(Kind.WRONG_METHOD.problem(detail), {"Allow": allow})
        case status if status < Kind.INTERNAL.status:
            return _Told(Kind.BAD_REQUEST.problem("Its head or its address is malformed."), {})
        case _:
            return _Told(Kind.INTERNAL.problem("It was logged. Trying again may help."), {})


def _log_surprise(request: Request[Any, Any, Any], error: Exception) -> None:
    """Log where it happened, not what was said: messages of drivers quote values."""
    frames = traceback.extract_tb(error.__traceback__)
    log.error(
        "request_failed",
        error=type(error).__qualname__,
        method=request.method,
        route=request.scope.get("path_template", ""),
        frames=[f"{one.filename}:{one.lineno} {one.name}" for one in frames[-8:]],
    )


def _shown(text: str, most: int) -> str:
    return text[:most].encode("utf-8", "backslashreplace").decode("utf-8")


def refusal_of(error: Exception) -> BatchRefusal:
    """Say why one item of a batch was not taken."""
    return BatchRefusal(problem=problem_of(error))

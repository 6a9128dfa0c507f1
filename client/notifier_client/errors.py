"""The errors of calls, and how they are made from answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from notifier_client.decoding import Undecodable, parse_object
from notifier_client.exchange import Answer, NoAnswer

if TYPE_CHECKING:
    from notifier_client.documents import Accepted

_PREFIX: Final = "urn:notifier:problem:"
_REQUEST_PREFIX: Final = "urn:notifier:request:"
_MAX_SHOWN: Final = 200
_TIMEOUT: Final = 408
_RATE_LIMITED: Final = 429
_SERVER_ERROR: Final = 500


@dataclass(frozen=True)
class FieldError:
    """One wrong field of a request: its path, what was expected, and a sentence."""

    field: str
    expected: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is known of a call that failed.

    `type` is the slug of `/docs/problems`; null if the answer was not one of Notifier's, as that of
    a proxy, or if there was none. `status` is null if there was no answer. `document` is the whole
    problem, with the members that only some types have.
    """

    title: str
    detail: str
    type: str | None = None
    status: int | None = None
    errors: tuple[FieldError, ...] = ()
    request_id: str | None = None
    retry_after_s: float | None = None
    idempotency_key: str | None = None
    document: Mapping[str, Any] = field(default_factory=dict)


class NotifierError(Exception):
    """A call that failed. The attributes are those of its `problem`.

    After an error that says nothing about whether a submit was stored, repeat it with the
    `idempotency_key`: it is not sent twice. `results` are those of the batches of a `send_many`
    that were answered before the error.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem
        self.type = problem.type
        self.status = problem.status
        self.title = problem.title
        self.detail = problem.detail
        self.errors = problem.errors
        self.request_id = problem.request_id
        self.retry_after_s = problem.retry_after_s
        self.idempotency_key = problem.idempotency_key
        self.results: tuple[Accepted | NotifierError, ...] = ()

    def __str__(self) -> str:
        fields = "; ".join(f"{error.field}: {error.detail}" for error in self.errors)
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.title}: {fields or self.detail}{request}"


class InvalidRequest(NotifierError):
    """A field is wrong; `errors` names it. The same request is refused again."""


class NotFound(NotifierError):
    """There is no notification with this id, or the key may not see it."""


class WrongStatus(NotifierError):
    """The notification has a status in which this is not possible: `current_status`."""

    @property
    def current_status(self) -> str | None:
        """The status that it has, null if the answer does not say."""
        status = self.problem.document.get("current_status")
        return status if isinstance(status, str) else None


class RateLimited(NotifierError):
    """The key has used up its rate, and the time limit of the call ended before it may go on."""


class Unavailable(NotifierError):
    """Notifier could not be reached, or could not do it within the time limit of the call.

    Whether a submit was stored is not known: repeat it later with the same `idempotency_key`.
    """


_CLASSES: Final[Mapping[str | None, type[NotifierError]]] = {
    "invalid-field": InvalidRequest,
    "unstorable": InvalidRequest,
    "not-found": NotFound,
    "wrong-status": WrongStatus,
    "idempotency-pending": Unavailable,
}


def error_of(reply: Answer | NoAnswer, key: str | None) -> NotifierError:
    """Return the error for a reply that is no success."""
    if isinstance(reply, NoAnswer):
        problem = Problem(title="No answer", detail=reply.reason, idempotency_key=key)
        return Unavailable(problem)
    try:
        document = parse_object(reply.body)
    except Undecodable:
        document = {}
    return problem_error(document, reply, key)


def problem_error(document: Mapping[str, Any], answer: Answer, key: str | None) -> NotifierError:
    """Return the error for a problem document, which may be that of one notification of a batch."""
    slug = problem_slug(document)
    status = document.get("status")
    if slug is None or type(status) is not int:
        status = answer.status
    problem = Problem(
        type=slug,
        status=status,
        title=_text(document, "title") if slug else f"HTTP {answer.status}",
        detail=_text(document, "detail") if slug else _foreign(answer),
        errors=_field_errors(document.get("errors")) if slug else (),
        request_id=_request_id(document, answer),
        retry_after_s=answer.retry_after_s,
        idempotency_key=key,
        document=document if slug else {},
    )
    return _class(slug, status)(problem)


def unreadable(answer: Answer, reason: str, key: str | None) -> NotifierError:
    """Return the error for a success whose document cannot be read."""
    return NotifierError(
        Problem(
            status=answer.status,
            title="The answer is not one of Notifier's",
            detail=f"HTTP {answer.status}, {reason}. Is the URL that of Notifier's API?",
            request_id=answer.headers.get("request-id"),
            idempotency_key=key,
        )
    )


def problem_slug(document: Mapping[str, Any]) -> str | None:
    """Return the slug of a problem of Notifier, null for any other document."""
    type_ = document.get("type")
    if isinstance(type_, str) and type_.startswith(_PREFIX):
        return type_.removeprefix(_PREFIX)
    return None


def _class(slug: str | None, status: int) -> type[NotifierError]:
    if known := _CLASSES.get(slug):
        return known
    if status == _RATE_LIMITED:
        return RateLimited
    return Unavailable if status == _TIMEOUT or status >= _SERVER_ERROR else NotifierError


def _field_errors(errors: object) -> tuple[FieldError, ...]:
    documents = errors if isinstance(errors, list) else []
    return tuple(
        FieldError(_text(each, "field"), _text(each, "expected"), _text(each, "detail"))
        for each in documents
        if isinstance(each, dict)
    )


def _request_id(document: Mapping[str, Any], answer: Answer) -> str | None:
    instance = _text(document, "instance")
    if instance.startswith(_REQUEST_PREFIX):
        return unquote(instance.removeprefix(_REQUEST_PREFIX))
    return answer.headers.get("request-id")


def _foreign(answer: Answer) -> str:
    shown = " ".join(answer.body[:_MAX_SHOWN].decode("utf-8", "replace").split())
    return f"the answer is not one of Notifier's: {shown!r}"


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""

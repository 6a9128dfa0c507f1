"""Every problem type of the API, in one table. `/docs/problems` is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from notifier.api.responses import FieldError, Problem

PREFIX: Final = "urn:notifier:problem:"
MAX_ERRORS: Final = 20
"""How many wrong fields of one request are reported."""
MAX_FIELD_LENGTH: Final = 200
MAX_DETAIL_LENGTH: Final = 400


class Repeat(StrEnum):
    """Whether the same request may be sent again."""

    USELESS = "No. The same request would get the same answer: change it first."
    SAFE = "Yes. Nothing was stored: repeat it, after the time in Retry-After if there is one."
    UNCERTAIN = (
        "With care. The change may have been stored: a repeated submit without an idempotency key "
        "may send the message twice. Requests that only read may be repeated."
    )


@dataclass(frozen=True, slots=True)
class Definition:
    """A problem type: its slug and title, the HTTP status, the cause, whether to repeat."""

    slug: str
    title: str
    status: int
    cause: str
    repeat: Repeat = Repeat.USELESS


class ProblemType(Enum):
    """The problem types. The slugs are a contract; titles and causes may change."""

    MALFORMED_JSON = Definition(
        "malformed-json",
        "The body is not valid JSON",
        400,
        "The body is empty, cut off, or not JSON in UTF-8.",
    )
    INVALID_FIELD = Definition(
        "invalid-field",
        "A field is wrong",
        400,
        "A field or a parameter has a wrong value, is missing, or has a name that the API does not "
        "know. `errors` has one entry for each, at most 20.",
    )
    UNSTORABLE = Definition(
        "unstorable",
        "The database rejected this notification",
        400,
        "The database cannot store a value of the notification.",
    )
    NOTHING_ACCEPTED = Definition(
        "nothing-accepted",
        "No item of the batch was accepted",
        400,
        "Every item of a batch was refused. `results` has the problem of each, in their order.",
    )
    BAD_REQUEST = Definition(
        "bad-request",
        "The request is malformed",
        400,
        "The request line or a header is malformed, or the connection closed too early.",
    )
    UNSUPPORTED_HEADER = Definition(
        "unsupported-header",
        "This version cannot do what a header asks for",
        400,
        "A header asks for something that the API would have to ignore, such as a condition.",
    )
    NOT_FOUND = Definition(
        "not-found",
        "Not found",
        404,
        "There is no such path, no notification with this id, or nothing with this name.",
    )
    CURSOR_GONE = Definition(
        "cursor-gone",
        "Nothing can be read after this cursor",
        410,
        "The events after it may have been dropped, or Postgres was restored since. Begin without "
        "a cursor, or with `from`.",
    )
    KEY_MISSING = Definition(
        "key-missing",
        "A key is missing",
        401,
        "The request has neither the header Authorization with a key nor a session. "
        "`notifier keys create --database` makes the first key.",
    )
    KEY_INVALID = Definition(
        "key-invalid",
        "The key is not valid",
        401,
        "The key is unknown, revoked or expired, or is no key: the answer does not tell which.",
    )
    SCOPE_MISSING = Definition(
        "scope-missing",
        "The key may not do this",
        403,
        "The key lacks a scope, which the problem names, or the route needs a deployment key, or a "
        "live one.",
    )
    ORIGIN_REFUSED = Definition(
        "origin-refused",
        "A page of another site may not call the API",
        403,
        "The header Origin names another site, or Host a name that is not known. See "
        "`api.public_url` in the settings.",
    )
    IN_USE = Definition(
        "in-use",
        "It is in use",
        409,
        "A tenant with keys, schedules, running operations or waiting notifications is not "
        "deleted; one that has as many keys, schedules or running operations as it may have gets "
        "no more; and no two schedules are the same.",
    )
    WRONG_STATUS = Definition(
        "wrong-status",
        "The notification has another status",
        409,
        "What waits can be cancelled; what has ended and is not sent can be sent again. "
        "`current_status` is the status that it has.",
    )
    RECIPIENT_SUPPRESSED = Definition(
        "recipient-suppressed",
        "The recipient is suppressed",
        409,
        "Nothing may be sent to the recipient: the suppression must be deleted before.",
    )
    NAME_TAKEN = Definition(
        "name-taken",
        "The name is taken",
        409,
        "A tenant was deleted whose notifications or suppressions are still stored: a new one "
        "of its name would have them. The name is free after the days of `retention.days`.",
    )
    RATE_LIMITED = Definition(
        "rate-limited",
        "The key has used up its rate",
        429,
        "The key makes more calls, or submits more notifications, than its rate allows.",
        Repeat.SAFE,
    )
    METHOD_NOT_ALLOWED = Definition(
        "method-not-allowed",
        "This path does not support this method",
        405,
        "The path exists, but not with this method. The header Allow lists those that it has.",
    )
    HEAD_TIMEOUT = Definition(
        "head-timeout",
        "The head of the request took too long",
        408,
        "The request line and the headers did not arrive in time.",
        Repeat.SAFE,
    )
    BODY_TIMEOUT = Definition(
        "body-timeout",
        "The body took too long to arrive",
        408,
        "The body did not arrive in time.",
        Repeat.SAFE,
    )
    BODY_TOO_LARGE = Definition(
        "body-too-large",
        "The body is too large",
        413,
        "The body, or one item of a batch, is larger than the limit that the problem names.",
    )
    UNSUPPORTED_MEDIA_TYPE = Definition(
        "unsupported-media-type",
        "The type or the encoding of the body is not supported",
        415,
        "The body is not declared as application/json, or it is compressed.",
    )
    KEY_IN_FLIGHT = Definition(
        "idempotency-pending",
        "Another request with this idempotency key is not finished",
        409,
        "This process is still storing another submit with the same idempotency key. If another "
        "process stores it, the answer is 503 `store-unavailable`: repeat both with the same key.",
        Repeat.SAFE,
    )
    KEY_REUSED = Definition(
        "idempotency-mismatch",
        "The idempotency key belongs to another request",
        422,
        "A submit with the same idempotency key and another body was accepted before. A repeat has "
        "the same body; a new notification has a new key.",
    )
    HEAD_TOO_LARGE = Definition(
        "head-too-large",
        "The head of the request is too large",
        431,
        "The request line and the headers are too large, or there are too many headers.",
    )
    INTERNAL_ERROR = Definition(
        "internal-error",
        "Internal error",
        500,
        "A defect of Notifier. The log has an entry `request_failed` with the id of the request.",
        Repeat.UNCERTAIN,
    )
    STORE_UNAVAILABLE = Definition(
        "store-unavailable",
        "The database is not available",
        503,
        "Postgres did not answer in time.",
        Repeat.UNCERTAIN,
    )
    OVERLOADED = Definition(
        "overloaded",
        "Too much work is waiting",
        503,
        "This process handles as many requests, or holds as many bytes of files, as it may, or too "
        "many notifications wait, or the renderer of templates is busy.",
        Repeat.SAFE,
    )
    FEATURE_UNAVAILABLE = Definition(
        "feature-unavailable",
        "A worker does not understand a feature of this notification yet",
        503,
        "A worker of an earlier version runs, as during an upgrade. It would send the notification "
        "without a part of its content, or not know the pause. The detail names the feature and "
        "the worker.",
        Repeat.SAFE,
    )
    NOT_READY = Definition(
        "not-ready",
        "This process is not ready",
        503,
        "The readiness check of a process that cannot do its work now. `reasons` says why.",
        Repeat.SAFE,
    )

    @property
    def status(self) -> int:
        """The HTTP status of the response."""
        return self.value.status

    @property
    def uri(self) -> str:
        """The `type` of its problems."""
        return PREFIX + self.value.slug

    def problem(
        self, detail: str, *, field: str | None = None, expected: str | None = None
    ) -> Problem:
        """Makes a problem of this type, about one field if it is given.

        `detail` and `field` are cut to their maximum length and made encodable as UTF-8.
        """
        errors = None if field is None else [field_error(field, expected or "")]
        return Problem(
            type=self.uri,
            title=self.value.title,
            status=self.value.status,
            detail=_printable(detail, MAX_DETAIL_LENGTH),
            errors=errors,
        )


def field_error(field: str, expected: str, detail: str | None = None) -> FieldError:
    """Makes the entry of one field. Without `detail` that says what was expected."""
    return FieldError(
        field=_printable(field, MAX_FIELD_LENGTH),
        expected=expected,
        detail=_printable(detail or f"expected {expected}", MAX_DETAIL_LENGTH),
    )


def _printable(text: str, max_length: int) -> str:
    return text[:max_length].encode("utf-8", "backslashreplace").decode("utf-8")

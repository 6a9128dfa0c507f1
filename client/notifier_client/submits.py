"""What a caller says of a notification, and the document that the API takes.

A caller gives all fields beside each other; the API has what the recipient sees in `content`.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Final, Literal, TypedDict

from notifier_client.instants import instant_text

MAX_BATCH: Final = 1_000
MAX_BATCH_BYTES: Final = 8 * 1024 * 1024
_BATCH_HEAD, _BATCH_TAIL = b'{"notifications":[', b"]}"


class Attachment(TypedDict, total=False):
    """A file of an email: `data`, or the id of an uploaded `blob`. A batch takes blobs only."""

    filename: str
    content_type: str
    data: bytes
    blob: str
    content_id: str


class _Parts(TypedDict, total=False):
    """The text, or the template that makes it."""

    subject: str | None
    body: str | None
    html: str | None
    data: Mapping[str, Any] | None
    from_: str | None
    reply_to: str | Sequence[str] | None
    cc: str | Sequence[str] | None
    bcc: str | Sequence[str] | None
    headers: Mapping[str, str] | None
    attachments: Sequence[Attachment] | None
    mime: str | None
    template: str | None
    variables: Mapping[str, Any] | None
    locale: str | None


class _FallbackTarget(TypedDict):
    after_s: float
    channel: str
    recipient: str


class Fallback(_FallbackTarget, _Parts, total=False):
    """One more notification, if this one is not sent, or not delivered, in time."""

    unless: Literal["sent", "delivered"]


class SubmitFields(_Parts, total=False):
    """The optional fields of a notification. None is as absent.

    `docs/sending.md` describes them. `send_at` and `expires_at` need a time zone. `tenant` is for
    deployment keys.
    """

    priority: Literal["high", "medium", "low"] | None
    send_at: datetime | str | None
    ttl_s: float | None
    expires_at: datetime | str | None
    time_zone: str | None
    collapse_key: str | None
    max_tries: int | None
    tag: str | None
    topic: str | None
    metadata: Mapping[str, Any] | None
    fallback: Fallback | None
    tenant: str | None
    idempotency_key: str | None


class _Target(TypedDict):
    channel: str
    recipient: str


class Submit(_Target, SubmitFields):
    """One notification of a batch."""


_CONTENT: Final = (
    *("subject", "body", "html", "data", "from_", "reply_to", "cc", "bcc"),
    *("headers", "attachments", "mime"),
)
_TARGET: Final = ("channel", "recipient")
_OF_SUBMIT: Final = frozenset((*_TARGET, *SubmitFields.__annotations__))
_OF_FALLBACK: Final = frozenset((*Fallback.__annotations__,))


def submit_document(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return the document of a submit, with this idempotency key unless it has one.

    Raises TypeError for an unknown field and ValueError for a datetime without a time zone.
    """
    document = _document(fields, _OF_SUBMIT)
    document.setdefault("idempotency_key", key)
    return document


def encoded(document: object) -> bytes:
    """Return JSON. Raises TypeError or ValueError for what JSON cannot say."""
    text = json.dumps(
        document,
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
        default=_plain,
    )
    return text.encode()


def batches(items: Iterable[bytes], size: int = MAX_BATCH) -> Iterator[tuple[int, bytes]]:
    """Yield the bodies of batches with the number of their notifications, in order.

    A batch has at most `size` of them and as many bytes as the API takes; one that is too large by
    itself is alone, and the API refuses it.
    """
    batch: list[bytes] = []
    room = MAX_BATCH_BYTES - len(_BATCH_HEAD + _BATCH_TAIL)
    free = room
    for item in items:
        if batch and (len(batch) == size or len(item) + 1 > free):
            yield len(batch), _joined(batch)
            batch, free = [], room
        batch.append(item)
        free -= len(item) + 1
    if batch:
        yield len(batch), _joined(batch)


def _joined(batch: Sequence[bytes]) -> bytes:
    return _BATCH_HEAD + b",".join(batch) + _BATCH_TAIL


def _document(fields: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    top: dict[str, Any] = {}
    content: dict[str, Any] = {}
    for name, value in fields.items():
        require_known(name, known)
        if value is not None:
            place = content if name in _CONTENT else top
            place[name.rstrip("_")] = _wire(name, value)
    return {**top, "content": content} if content else top


def require_known(name: str, known: Iterable[str]) -> None:
    """Raise TypeError, with the name that was probably meant, for an unknown one."""
    names = sorted(known)
    if name not in names:
        close = get_close_matches(name, names, n=1)
        hint = f": did you mean {close[0]!r}?" if close else f", expected one of {names}"
        raise TypeError(f"unknown field {name!r}{hint}")


def _wire(name: str, value: Any) -> object:  # noqa: ANN401 what a TypedDict has by this name
    if isinstance(value, datetime):
        return instant_text(name, value)
    if name == "fallback":
        return _document(value, _OF_FALLBACK)
    if name == "attachments":
        return [_attachment(each) for each in value]
    return value


def _attachment(attachment: Mapping[str, Any]) -> dict[str, Any]:
    data = attachment.get("data")
    if isinstance(data, bytes | bytearray | memoryview):
        return {**attachment, "data": b64encode(data).decode()}
    return dict(attachment)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"expected a value of JSON, got {type(value).__name__}: {value!r:.100}")

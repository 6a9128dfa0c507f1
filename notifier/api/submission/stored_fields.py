"""The fields of stored submits, by their paths: `recipient`, `content.body`.

Of schedules and fallbacks. A process takes only those whose fields it knows. A later version may
know more, and a submit with a field that is not known would be refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from notifier.api.requests import AttachmentDocument, Content, Fallback, Submit

_CONTENT: Final = "content"
_FILES: Final = "attachments"
_FALLBACK: Final = "fallback"


def _names(struct: type[msgspec.Struct], prefix: str = "") -> Iterator[str]:
    return (prefix + field.encode_name for field in msgspec.structs.fields(struct))


KNOWN_FIELDS: Final = frozenset(
    (
        *_names(Submit),
        *_names(Content, f"{_CONTENT}."),
        *_names(AttachmentDocument, f"{_CONTENT}.{_FILES}."),
        *_names(Fallback, f"{_FALLBACK}."),
        *_names(Content, f"{_FALLBACK}.{_CONTENT}."),
        *_names(AttachmentDocument, f"{_FALLBACK}.{_CONTENT}.{_FILES}."),
    )
)
"""All of this version. Values of any shape, such as metadata, are one field."""


def fields_of(notification: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of a valid submit."""
    return frozenset(_fields_of(notification))


def _fields_of(notification: Mapping[str, Any]) -> Iterator[str]:
    yield from notification
    content = notification.get(_CONTENT) or {}
    yield from (f"{_CONTENT}.{name}" for name in content)
    for file in content.get(_FILES) or ():
        yield from (f"{_CONTENT}.{_FILES}.{name}" for name in file)
    if fallback := notification.get(_FALLBACK):
        yield from (f"{_FALLBACK}.{path}" for path in _fields_of(fallback))

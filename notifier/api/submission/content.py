"""Checks and encodes the parts of a submit that are stored as JSON: content and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from notifier.api.http.decode_errors import invalid_field
from notifier.api.http.json_checks import (
    MAX_DEPTH,
    NESTING_EXPECTED,
    find_unstorable,
    is_suspicious,
    parse_leniently,
)
from notifier.api.requests import Content
from notifier.api.rules import AddressKind
from notifier.api.submission.email_schemas import ONLY_MIME, head_schemas
from notifier.domain.blobs import BLOB_ID_EXPECTED, MIME, is_blob_id
from notifier.domain.errors import InvalidNotification
from notifier.domain.inbox import MAX_ENTRY_BYTES
from notifier.domain.one_line import CONTROL_CHARACTER, ONE_LINE_EXPECTED

_ENCODER: Final = msgspec.json.Encoder()
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
_TEXTS: Final = ("subject", "body", "html", "data")
_REQUIRED_PARTS: Final = {
    AddressKind.EMAIL: ("subject",),
    AddressKind.PHONE: ("body",),
    AddressKind.TOKEN: ("subject", "body", "data"),
    AddressKind.USER: ("body",),
}
"""One of these must be given, and not be empty."""


def check_content(kind: AddressKind, content: Content) -> None:
    """Raises InvalidNotification if a part is missing that the channel needs, or wrong."""
    if kind is AddressKind.EMAIL and content.mime is not None:
        _check_only_mime(content, content.mime)
        return
    names = _REQUIRED_PARTS[kind]
    parts = [getattr(content, name) for name in names]
    if not any(is_given(part) and part for part in parts):
        field = f"content.{names[0]}" if len(names) == 1 else "content"
        raise InvalidNotification(field, f"a non-empty {' or '.join(names)}")
    if content.subject and CONTROL_CHARACTER.search(content.subject):
        raise InvalidNotification("content.subject", ONE_LINE_EXPECTED)
    if kind is AddressKind.USER:
        _check_entry_size(content)


def _check_entry_size(content: Content) -> None:
    texts = (text.encode() for text in (content.subject, content.body) if text)
    if sum(map(len, texts)) + len(bytes(content.data)) > MAX_ENTRY_BYTES:
        expected = f"subject, body and data of at most {MAX_ENTRY_BYTES:,} bytes together"
        raise InvalidNotification("content", expected)


def _check_only_mime(content: Content, mime: str) -> None:
    if not is_blob_id(mime):
        raise InvalidNotification(f"content.{MIME}", BLOB_ID_EXPECTED)
    for name in content.__struct_fields__:
        is_allowed = name in {MIME, "from_"}
        if not is_allowed and is_given(getattr(content, name)):
            raise InvalidNotification(
                f"content.{name}", f"null: content.{MIME} is the whole message"
            )


def content_schema(kind: AddressKind) -> dict[str, Any]:
    """Returns the JSON schema of what `check_content` demands beyond the fields' own rules."""
    return {
        "anyOf": [
            *(_given(name) for name in _REQUIRED_PARTS[kind]),
            *([ONLY_MIME] if kind is AddressKind.EMAIL else []),
        ],
        "properties": head_schemas(kind),
    }


def _given(name: str) -> dict[str, Any]:
    given = {"type": "object"} if name == "data" else {"type": "string", "minLength": 1}
    return {"properties": {name: given, MIME: {"type": "null"}}, "required": [name]}


def encode_content(
    content: Content, *, max_bytes: int, others: Mapping[str, object] | None = None
) -> bytes:
    """Returns the given parts and the checked `others` as JSON.

    Raises InvalidNotification if they cannot be stored.
    """
    if is_given(content.data):
        _check_size(content.data, "content", max_bytes)
        check_object(content.data, "content.data")
    texts = {name: getattr(content, name) for name in _TEXTS}
    parts = {name: part for name, part in texts.items() if is_given(part)}
    encoded = _ENCODER.encode({**parts, **others} if others else parts)
    _check_size(encoded, "content", max_bytes)
    if b"\\u0000" in encoded:
        _refuse_unstorable(encoded, "content", max_depth=MAX_DEPTH + 1)
    return encoded


def encode_metadata(metadata: msgspec.Raw, *, max_bytes: int) -> bytes:
    """Returns the metadata unchanged, or `{}` if there are none.

    Raises InvalidNotification if they cannot be stored.
    """
    if not is_given(metadata):
        return b"{}"
    _check_size(metadata, "metadata", max_bytes)
    check_object(metadata, "metadata")
    return bytes(metadata)


def check_object(raw: msgspec.Raw, path: str) -> None:
    """Raises InvalidNotification unless this is a JSON object that can be stored."""
    document = bytes(raw)
    try:
        _OBJECT.decode(document)
    except msgspec.ValidationError as error:
        _refuse_unstorable(document, path)
        raise invalid_field(str(error), prefix=path) from error
    except UnicodeDecodeError as error:
        raise InvalidNotification(path, "text in UTF-8") from error
    except RecursionError as error:
        raise InvalidNotification(path, NESTING_EXPECTED) from error
    if is_suspicious(document):
        _refuse_unstorable(document, path)


def _check_size(part: bytes | msgspec.Raw, path: str, max_bytes: int) -> None:
    # Called before every other check: the size bounds their cost.
    if len(bytes(part)) > max_bytes:
        raise InvalidNotification(path, f"at most {max_bytes:,} bytes of JSON")


def is_given(part: object) -> bool:
    """Whether a part is present and not null. Empty text counts as given."""
    if isinstance(part, msgspec.Raw):
        return bytes(part) not in {b"", b"null"}
    return part is not None


def _refuse_unstorable(document: bytes, path: str, *, max_depth: int = MAX_DEPTH) -> None:
    try:
        error = find_unstorable(parse_leniently(document), path, max_depth)
    except RecursionError as too_deep:
        raise InvalidNotification(path, NESTING_EXPECTED) from too_deep
    if error:
        raise error

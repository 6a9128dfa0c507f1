"""The parts of a submit that are stored as they came: content and metadata."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from notifier.api.http.decode_errors import explain
from notifier.api.http.json_checks import (
    MAX_DEPTH,
    NESTING,
    find_flaw,
    is_suspicious,
    parse_anything,
)
from notifier.api.requests import Content
from notifier.api.settings import AddressKind
from notifier.domain.errors import InvalidNotification

_ENCODER: Final = msgspec.json.Encoder()
_OBJECT: Final = msgspec.json.Decoder(dict[str, Any])
NO_LINE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""C0, C1 and the separators of Unicode: each ends a line for some mail software."""
ONE_LINE: Final = "one line, without control characters"
_NEEDED: Final = {
    AddressKind.EMAIL: ("subject", "body", "html"),
    AddressKind.PHONE: ("body",),
    AddressKind.TOKEN: ("subject", "body", "data"),
}


def check_content(kind: AddressKind, content: Content) -> None:
    """Raise InvalidNotification if there is nothing to show on such a channel, or it cannot be."""
    needed = _NEEDED[kind]
    parts = [getattr(content, part) for part in needed]
    if not any(_is_there(one) and one for one in parts):
        field = f"content.{needed[0]}" if len(needed) == 1 else "content"
        raise InvalidNotification(field, f"a non-empty {' or '.join(needed)}")
    if content.subject and NO_LINE.search(content.subject):
        raise InvalidNotification("content.subject", ONE_LINE)


def encode_content(content: Content, *, most: int) -> bytes:
    """Encode what was given, once. Raises InvalidNotification for what cannot be stored."""
    if _is_there(content.data):
        _check_size(content.data, "content", most)
        check_object(content.data, "content.data")
    given = {part: getattr(content, part) for part in Content.__struct_fields__}
    encoded = _ENCODER.encode({part: one for part, one in given.items() if _is_there(one)})
    _check_size(encoded, "content", most)
    if b"\\u0000" in encoded:
        _refuse_flaws(encoded, "content", room=MAX_DEPTH + 1)
    return encoded


def encode_metadata(metadata: msgspec.Raw, *, most: int) -> bytes:
    """Take the metadata as they came; none is an empty object."""
    if not _is_there(metadata):
        return b"{}"
    _check_size(metadata, "metadata", most)
    check_object(metadata, "metadata")
    return bytes(metadata)


def check_object(raw: msgspec.Raw, path: str) -> None:
    """Raise InvalidNotification unless this is an object that can be stored."""
    document = bytes(raw)
    try:
        _OBJECT.decode(document)
    except msgspec.ValidationError as error:
        _refuse_flaws(document, path)
        raise explain(str(error), prefix=path) from error
    except UnicodeDecodeError as error:
        raise InvalidNotification(path, "text in UTF-8") from error
    except RecursionError as error:
        raise InvalidNotification(path, NESTING) from error
    if is_suspicious(document):
        _refuse_flaws(document, path)


def _check_size(part: bytes | msgspec.Raw, path: str, most: int) -> None:
    """Before anything looks into it: its size bounds what that costs."""
    if len(bytes(part)) > most:
        raise InvalidNotification(path, f"at most {most:,} bytes of JSON")


def _is_there(part: str | msgspec.Raw | None) -> bool:
    """Whether a part was given and is not null; it may be empty text."""
    if isinstance(part, msgspec.Raw):
        return bytes(part) not in {b"", b"null"}
    return part is not None


def _refuse_flaws(document: bytes, path: str, *, room: int = MAX_DEPTH) -> None:
    flaw = find_flaw(parse_anything(document), path, room)
    if flaw:
        raise flaw

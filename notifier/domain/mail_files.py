"""Files of an email: their document, and what each of its fields may be.

The functions return what they were given. They raise ValueError, which says what was expected.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from typing import Final

import msgspec

from notifier.domain.mailbox import UNPRINTABLE

MAX_FILES: Final = 20
MAX_FILENAME_LENGTH: Final = 200
FILENAME_EXPECTED: Final = (
    f"a name of 1 to {MAX_FILENAME_LENGTH} characters such as invoice.pdf, without folders, "
    "control characters, marks of text direction and blanks at its ends"
)
CONTENT_TYPE_EXPECTED: Final = (
    "a type such as application/pdf or text/calendar; method=REQUEST, neither multipart nor message"
)
CONTENT_ID_EXPECTED: Final = "1 to 200 letters, digits and ._@+-, to be referred to as cid:..."
DATA_EXPECTED: Final = "base64 (RFC 4648, section 4), with padding and without line breaks"
_TOKEN: Final = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}"  # noqa: S105 of RFC 6838 4.2
_PARAMETER: Final = r"; ?(?!boundary=|name)[a-z][a-z0-9-]{0,30}=[A-Za-z0-9._+-]{1,60}"
_CONTENT_TYPE: Final = re.compile(
    rf"(?!(?i:multipart|message)/){_TOKEN}/{_TOKEN}(?:{_PARAMETER}){{0,4}}"
)
_CONTENT_ID: Final = re.compile(r"[A-Za-z0-9._@+-]{1,200}")


_STEP: Final = 1024 * 1024
"""Characters that are decoded at once: other threads may run after each step."""


class FileDocument(msgspec.Struct, frozen=True):
    """A file as it is stored in the content."""

    filename: str
    content_type: str
    blob: str
    content_id: str | None = None


def checked_filename(name: str) -> str:
    """Check the name of a file."""
    is_path = "/" in name or "\\" in name or not name.strip(".")
    is_long = not 1 <= len(name) <= MAX_FILENAME_LENGTH
    if is_long or is_path or UNPRINTABLE.search(name) or name != name.strip():
        raise ValueError(FILENAME_EXPECTED)
    return name


def checked_content_type(content_type: str) -> str:
    """Check a media type with its parameters."""
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise ValueError(CONTENT_TYPE_EXPECTED)
    return content_type


def checked_content_id(content_id: str) -> str:
    """Check the id of a file of the HTML; empty means that there is none."""
    if content_id and not _CONTENT_ID.fullmatch(content_id):
        raise ValueError(CONTENT_ID_EXPECTED)
    return content_id


def decoded_data(data: str) -> bytes:
    """Return the bytes of a file."""
    try:
        steps = [
            a2b_base64(data[start : start + _STEP], strict_mode=True)
            for start in range(0, len(data), _STEP)
        ]
    except (Error, ValueError) as error:
        raise ValueError(DATA_EXPECTED) from error
    if any(len(step) < _STEP // 4 * 3 for step in steps[:-1]):  # padded before the end
        raise ValueError(DATA_EXPECTED)
    return b"".join(steps)

"""Inputs of parsers: arbitrary JSON, and valid input with faults in it."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, Final

from hypothesis import strategies as st

from notifier.domain.blobs import blob_id

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FRAGMENTS = st.sampled_from([b"[" * 40, b"9" * 5000, b"\xff", b"\0", b"\r\n"]) | st.sampled_from(
    rb'{ " \u0000 \ud800 NaN 1e999 null -0 true , : \ %00 & ='.split()
)


@st.composite
def corrupted(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Valid input with parts of it overwritten, repeated or removed."""
    data = draw(valid)
    for _ in range(draw(st.integers(0, 4))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        data = (
            data[:start]
            + draw(FRAGMENTS | st.binary(max_size=9) | st.just(data[start:end] * 2))
            + (data[end:] if draw(st.booleans()) else data[start:])
        )
    return data


def documents(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """JSON objects with a subset of these fields, encoded by json.dumps."""
    return st.fixed_dictionaries({}, optional=fields).map(
        lambda document: json.dumps(document).encode()
    )


MAILBOXES = (
    st.sampled_from(["ada@example.com", "Ada <ada@example.com>", "@", '"a\\"b" <a@b.example>'])
    | st.text()
)
HEADER_NAMES = st.sampled_from(["X-Order", "In-Reply-To", "List-Id", "Auto-Submitted", "To"]) | (
    st.text()
)
FILE_FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "filename": st.text() | JSON,
    "content_type": st.sampled_from(["text/plain", "image/png; name=a", "message/rfc822"]) | JSON,
    "data": st.binary().map(lambda data: b64encode(data).decode()) | st.text() | JSON,
    "content_id": st.text() | JSON,
    "blob": st.sampled_from([blob_id(b""), "sha256:"]) | JSON,
}
CONTENT_FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "subject": st.text(),
    "body": st.text(),
    "html": st.text(),
    "data": JSON,
    **dict.fromkeys(["from", "reply_to", "cc", "bcc"], MAILBOXES | st.lists(MAILBOXES) | JSON),
    "headers": st.dictionaries(HEADER_NAMES, st.text() | JSON) | JSON,
    "attachments": st.lists(st.fixed_dictionaries({}, optional=FILE_FIELDS)) | JSON,
    "mime": st.sampled_from([blob_id(b""), "sha256:"]) | JSON,
}
MAIL_LINES = st.sampled_from(
    [
        b"From: a@example.com",
        b"From: x",
        b"Subject: \xe9",
        b" folded",
        b"",
        b"\r",
        b".",
        b"Bcc: b@c.d",
    ]
) | st.binary(max_size=20)
MAILS = st.lists(MAIL_LINES, max_size=8).flatmap(
    lambda lines: st.sampled_from([b"\n", b"\r\n"]).map(lambda end: end.join([*lines, b""]))
)

"""A wrong value of an enumeration is answered with the values of that field."""

from __future__ import annotations

import pytest

from notifier.api.auth.documents import KeyRequest
from notifier.api.http.decoding import BodyDecoder
from notifier.api.requests import Submit
from notifier.api.suppressions.csv_rows import read_rows
from notifier.api.suppressions.documents import SuppressionRequest
from notifier.domain.errors import InvalidNotification

SCOPES = "one of submit, read, operate, admin"


@pytest.mark.parametrize(
    ("struct", "body", "field", "expected"),
    [
        (Submit, b'{"priority": "x"}', "priority", "one of high, medium, low"),
        (KeyRequest, b'{"scopes": ["x"]}', "scopes.0", SCOPES),
        (KeyRequest, b'{"scopes": ["read", "x"], "note": 1}', "scopes.1", SCOPES),
        (KeyRequest, b'{"scopes": ["read"], "mode": "x"}', "mode", "one of live, test"),
    ],
)
def test_a_wrong_value_is_answered_with_those_of_the_field(
    struct: type, body: bytes, field: str, expected: str
) -> None:
    with pytest.raises(InvalidNotification) as caught:
        BodyDecoder(struct).decode(body)
    assert (caught.value.field, caught.value.expected) == (field, expected)


def test_a_reason_in_a_body_and_in_a_row_is_answered_alike() -> None:
    with pytest.raises(InvalidNotification) as caught:
        BodyDecoder(SuppressionRequest).decode(
            b'{"channel": "email", "recipient": "a@b.example", "reason": "x"}'
        )
    (row,) = read_rows(b"channel,recipient,reason\nemail,a@b.example,x\n")
    assert isinstance(row.request, InvalidNotification)
    assert row.request.expected == caught.value.expected
    assert row.request.expected.startswith("one of manual, bounce")

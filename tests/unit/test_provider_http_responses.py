from __future__ import annotations

import codecs
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.providers.http.responses import (
    is_code,
    json_document,
    retry_after,
    values_at,
)

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", timedelta(seconds=1)),
        (" 30 ", timedelta(seconds=30)),
        ("0", timedelta()),
        ("86400", HOUR),
        ("9" * 400, HOUR),
        ("Thu, 31 Jan 2030 12:00:10 GMT", timedelta(seconds=10)),
        ("Thu, 31 Jan 2030 11:00:00 GMT", timedelta()),
        ("Thu, 31 Jan 2040 12:00:00 GMT", HOUR),
        (None, None),
        ("", None),
        ("-1", None),
        ("1.5", timedelta(seconds=1.5)),
        ("1.", None),
        ("1e3", None),
        ("Thursday, 31-Jan-30 12:00:10 GMT", timedelta(seconds=10)),
        ("Thu Jan 31 12:00:10 2030", timedelta(seconds=10)),
        ("soon", None),
        ("²", None),
        ("Thu, 99 Jan 2030 12:00:10 GMT", None),
    ],
)
def test_retry_after_is_parsed_in_both_forms_and_bounded(
    value: str | None, expected: timedelta | None
) -> None:
    assert retry_after(value, now=NOW, limit=HOUR) == expected


def test_a_date_is_compared_with_the_servers_own_clock() -> None:
    wait = retry_after(
        "Thu, 31 Jan 2030 15:00:05 GMT",
        now=NOW,
        date="Thu, 31 Jan 2030 15:00:00 GMT",
        limit=HOUR,
    )
    assert wait == timedelta(seconds=5)


@given(st.text(max_size=60))
def test_no_value_of_retry_after_raises(value: str) -> None:
    wait = retry_after(value, now=NOW, date=value, limit=HOUR)
    assert wait is None or timedelta() <= wait <= HOUR


def test_a_path_finds_texts_numbers_and_booleans_in_objects_and_lists() -> None:
    document = {
        "sid": "SM1",
        "code": 7,
        "ok": False,
        "error": {"details": [{"@type": "x"}, {"errorCode": "GONE"}]},
        "no": None,
    }
    assert values_at(document, "sid") == ["SM1"]
    assert values_at(document, "code") == ["7"]
    assert values_at(document, "ok") == ["false"]
    assert values_at(document, "error.details.1.errorCode") == ["GONE"]
    assert values_at(document, "error.details.*.errorCode") == ["GONE"]
    assert values_at(document, "error.*.*.@type") == ["x"]
    for absent in ("no", "error", "error.details.2.x", "sid.x", "error.details.x", "", "9" * 5000):
        assert values_at(document, absent) == []


@given(st.binary(max_size=50), st.text(max_size=9))
def test_no_body_and_no_path_raise(body: bytes, path: str) -> None:
    values_at(json_document(body), path)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "\xe9"}',
        b'\xef\xbb\xbf{"a": "\xc3\xa9"}',
        '{"a": "é"}'.encode("utf-16"),
        codecs.BOM_UTF16_BE + '{"a": "é"}'.encode("utf-16-be"),
        '{"a": "é"}'.encode("utf-32"),
    ],
)
def test_json_with_a_byte_order_mark_or_in_latin_1_is_read(body: bytes) -> None:
    assert json_document(body) == {"a": "é"}


@pytest.mark.parametrize("code", ["21211", "UNREGISTERED", "messaging/invalid-token", "E 7"])
def test_a_single_word_is_a_code(code: str) -> None:
    assert is_code(code, "+15005550006")


@pytest.mark.parametrize(
    "code",
    ["", "+15005550006", "15005550006", "bad: 15005550006", "005550006", "a\nb", "é", "x" * 65],
)
def test_other_text_and_text_with_the_recipient_are_no_codes(code: str) -> None:
    assert not is_code(code, "+15005550006")

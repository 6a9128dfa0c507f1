from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.providers.http.responses import (
    is_code,
    json_document,
    json_path,
    retry_after,
    verdict_of,
)
from notifier.adapters.providers.verdict import VerdictName

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, "accepted"),
        (201, "accepted"),
        (202, "accepted"),
        (204, "accepted"),
        (301, "refused"),
        (307, "refused"),
        (400, "refused"),
        (401, "credentials"),
        (403, "credentials"),
        (404, "refused"),
        (407, "credentials"),
        (408, "unavailable"),
        (409, "refused"),
        (410, "gone"),
        (413, "refused"),
        (422, "refused"),
        (425, "unavailable"),
        (429, "throttled"),
        (500, "unavailable"),
        (502, "unavailable"),
        (503, "unavailable"),
        (504, "unavailable"),
        (999, "ambiguous"),
    ],
)
def test_each_status_has_the_verdict_of_the_table(status: int, verdict: VerdictName) -> None:
    assert verdict_of(status, (), {}, {}) == verdict


def test_an_error_code_overrides_a_status_of_the_settings_which_overrides_the_table() -> None:
    assert verdict_of(400, ("9", "7"), {"400": "gone"}, {"7": "throttled"}) == "throttled"
    assert verdict_of(400, ("9",), {"400": "gone"}, {"7": "throttled"}) == "gone"
    assert verdict_of(400, ("9",), {"404": "gone"}, {"7": "throttled"}) == "refused"


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
        ("1.5", None),
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


def test_a_path_finds_strings_and_numbers_in_objects_and_lists() -> None:
    document = {"sid": "SM1", "code": 7, "error": {"details": [{"errorCode": "GONE"}]}, "no": None}
    assert json_path(document, "sid") == "SM1"
    assert json_path(document, "code") == "7"
    assert json_path(document, "error.details.0.errorCode") == "GONE"
    for absent in ("no", "error", "error.details.1.errorCode", "sid.x", "error.details.x", ""):
        assert json_path(document, absent) == ""


@given(st.binary(max_size=50))
def test_a_body_that_is_not_json_is_none(body: bytes) -> None:
    json_path(json_document(body), "a.b")


@pytest.mark.parametrize("code", ["21211", "UNREGISTERED", "messaging/invalid-token", "E 7"])
def test_a_single_word_is_a_code(code: str) -> None:
    assert is_code(code, "+15005550006")


@pytest.mark.parametrize(
    "code",
    ["", "+15005550006", "15005550006", "bad: 15005550006", "005550006", "a\nb", "é", "x" * 65],
)
def test_other_text_and_text_with_the_recipient_are_no_codes(code: str) -> None:
    assert not is_code(code, "+15005550006")

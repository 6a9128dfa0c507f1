"""What HTTP responses mean, by the built-in table and by the settings of a provider."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from notifier.adapters.providers.http.answers import STATUSES, AnswerTable, verdict_of
from notifier.adapters.providers.http.settings import HttpSettings, SuccessSettings
from notifier.adapters.providers.http.transport import Answer
from notifier.adapters.providers.verdict import VerdictName

URL = "https://sms.example.com/"
VONAGE = SuccessSettings(path="messages.*.status", values=("0",))
SLACK = SuccessSettings(path="ok", values=(True,))


def decided(settings: HttpSettings, body: bytes, status: int = 200) -> tuple[VerdictName, str]:
    answer = Answer(status, b"", body, is_whole=True)
    decision = AnswerTable("sms", settings).decide(answer, "+15005550006")
    return decision.verdict, decision.code


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, "accepted"),
        (201, "accepted"),
        (202, "accepted"),
        (204, "accepted"),
        (299, "accepted"),
        (301, "misconfigured"),
        (302, "misconfigured"),
        (307, "misconfigured"),
        (308, "misconfigured"),
        (400, "refused"),
        (401, "credentials"),
        (402, "misconfigured"),
        (403, "credentials"),
        (404, "misconfigured"),
        (405, "misconfigured"),
        (407, "credentials"),
        (408, "unavailable"),
        (409, "deferred"),
        (410, "gone"),
        (413, "refused"),
        (415, "misconfigured"),
        (422, "refused"),
        (425, "unavailable"),
        (429, "throttled"),
        (500, "unavailable"),
        (501, "misconfigured"),
        (502, "unavailable"),
        (503, "unavailable"),
        (504, "unavailable"),
        (599, "unavailable"),
        (600, "ambiguous"),
        (999, "ambiguous"),
    ],
)
def test_each_status_has_the_outcome_of_the_table(status: int, verdict: VerdictName) -> None:
    assert verdict_of(status) == verdict


def test_every_row_of_the_table_is_reached() -> None:
    rows = [row for row in STATUSES if row.text is None]
    first = [next(row for row in rows if status in row.statuses) for status in range(200, 600)]
    assert set(first) == set(rows)


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (b"<h1>400</h1><center>The plain HTTP request was sent to HTTPS port", "misconfigured"),
        (b"You're speaking plain HTTP to an SSL-enabled server port.", "misconfigured"),
        (b"Client sent an HTTP request to an HTTPS server.\n", "misconfigured"),
        (b"<center>No required SSL certificate was sent</center>", "credentials"),
        (b"<center>The SSL certificate error</center>", "credentials"),
        (b"a required parameter was not sent", "refused"),
    ],
)
def test_a_400_of_the_server_before_the_provider_is_our_configuration(
    body: bytes, verdict: VerdictName
) -> None:
    assert decided(HttpSettings(url=URL), body, 400) == (verdict, "400")
    assert decided(HttpSettings(url=URL, answers={"400": "gone"}), body, 400)[0] == "gone"


@pytest.mark.parametrize(
    ("key", "status", "verdict"),
    [
        ("404", 404, "gone"),
        ("4xx", 404, "gone"),
        ("4XX", 499, "gone"),
        ("400-410", 410, "gone"),
        ("400-410", 411, "misconfigured"),
        ("5xx", 404, "misconfigured"),
        ("2xx", 204, "gone"),
    ],
)
def test_the_settings_override_statuses_and_ranges_of_statuses(
    key: str, status: int, verdict: VerdictName
) -> None:
    assert decided(HttpSettings(url=URL, answers={key: "gone"}), b"", status)[0] == verdict


def test_the_narrower_range_of_statuses_counts_in_any_order() -> None:
    answers: Mapping[str, VerdictName] = {"4xx": "deferred", "404": "gone", "400-409": "throttled"}
    settings = HttpSettings(url=URL, answers=answers)
    assert [decided(settings, b"", status)[0] for status in (404, 403, 410)] == [
        "gone",
        "throttled",
        "deferred",
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"code": 21606}', ("misconfigured", "21606")),
        (b'{"code": "7"}', ("deferred", "7")),
        (b'{"error": {"code": 7}}', ("deferred", "7")),
        (b'{"code": 8}', ("throttled", "8")),
        (b'{"errors": [{"reason": "x"}, {"reason": "quota"}]}', ("unavailable", "quota")),
        (b'{"code": 21606, "errors": [{"reason": "quota"}]}', ("unavailable", "quota")),
        (b"{}", ("gone", "400")),
        (b"", ("gone", "400")),
    ],
)
def test_a_value_at_a_path_counts_before_a_code_before_any_code_before_the_status(
    body: bytes, expected: tuple[VerdictName, str]
) -> None:
    settings = HttpSettings(
        url=URL,
        error_code=("code", "error.code"),
        answers={
            "400": "gone",
            "*": "throttled",
            "21606": "misconfigured",
            "7": "deferred",
            "errors.*.reason=quota": "unavailable",
        },
    )
    assert decided(settings, body, 400) == expected


def test_a_code_is_found_at_any_of_several_paths_and_in_any_entry_of_a_list() -> None:
    settings = HttpSettings(
        url=URL,
        error_code=("error.details.*.errorCode", "error.status"),
        answers={"UNREGISTERED": "gone"},
    )
    details = b'[{"@type": "a"}, {"@type": "b", "errorCode": "UNREGISTERED"}]'
    body = b'{"error": {"status": "NOT_FOUND", "details": %s}}' % details
    assert decided(settings, body, 404) == ("gone", "UNREGISTERED")
    assert decided(settings, b'{"error": {"status": "NOT_FOUND"}}', 404) == (
        "misconfigured",
        "NOT_FOUND",
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"ERROR:13", ("misconfigured", "ERROR:13")),
        (b"ERROR:14 no route", ("deferred", "14")),
        (b"ERROR:99", ("refused", "200")),
        (b"\xef\xbb\xbfOK:1234", ("accepted", "200")),
        (b"", ("refused", "200")),
    ],
)
def test_a_text_body_is_matched_by_expressions(
    body: bytes, expected: tuple[VerdictName, str]
) -> None:
    settings = HttpSettings(
        url=URL,
        answers={"/^ERROR:13$/": "misconfigured", "/^ERROR:(14)/": "deferred"},
        success=SuccessSettings(text="^OK:"),
    )
    assert decided(settings, body) == expected


@pytest.mark.parametrize(
    ("success", "body", "verdict"),
    [
        (VONAGE, b'{"messages": [{"status": "0"}]}', "accepted"),
        (VONAGE, b'{"messages": [{"status": 0}]}', "accepted"),
        (VONAGE, b'{"messages": [{"status": "29"}]}', "refused"),
        (VONAGE, b'{"messages": [{"status": "0"}, {"status": "29"}]}', "refused"),
        (VONAGE, b'{"messages": []}', "refused"),
        (VONAGE, b"<html>", "ambiguous"),
        (VONAGE, b"", "ambiguous"),
        (SuccessSettings(text="^OK"), b"<html>", "refused"),
        (SLACK, b'{"ok": true}', "accepted"),
        (SLACK, b'{"ok": false, "error": "channel_not_found"}', "refused"),
        (SLACK, b'{"ok": "maybe"}', "refused"),
    ],
)
def test_a_2xx_whose_body_says_no_is_not_accepted(
    success: SuccessSettings, body: bytes, verdict: VerdictName
) -> None:
    assert decided(HttpSettings(url=URL, success=success), body)[0] == verdict


def test_a_body_that_says_no_has_the_outcome_of_its_code_else_the_default() -> None:
    settings = HttpSettings(
        url=URL,
        error_code=("messages.*.status",),
        answers={"29": "misconfigured", "1": "throttled"},
        success=SuccessSettings(path="messages.*.status", values=(0,), otherwise="deferred"),
    )
    body = b'{"messages": [{"status": "%s"}]}'
    assert decided(settings, body % b"29") == ("misconfigured", "29")
    assert decided(settings, body % b"1") == ("throttled", "1")
    assert decided(settings, body % b"5") == ("deferred", "5")
    assert decided(settings, body % b"0") == ("accepted", "0")
    assert decided(settings, body % b"0", 500)[0] == "unavailable"


def test_any_code_does_not_concern_a_success() -> None:
    path = "messages.*.status"
    answers: Mapping[str, VerdictName] = {"*": "throttled"}
    plain = HttpSettings(url=URL, error_code=(path,), answers=answers)
    checked = HttpSettings(url=URL, error_code=(path,), answers=answers, success=VONAGE)
    body = b'{"messages": [{"status": "%s"}]}'
    assert decided(plain, body % b"29")[0] == "accepted"
    assert decided(checked, body % b"0")[0] == "accepted"
    assert decided(checked, body % b"29") == ("throttled", "29")


def test_a_body_that_broke_off_says_neither_yes_nor_no() -> None:
    answer = Answer(200, b"", b'{"messages": [{"sta', is_whole=False)
    plain = AnswerTable("sms", HttpSettings(url=URL))
    checked = AnswerTable("sms", HttpSettings(url=URL, success=VONAGE))
    assert plain.decide(answer, "").verdict == "accepted"
    assert checked.decide(answer, "").verdict == "ambiguous"


def test_a_code_that_is_no_single_word_or_holds_the_recipient_is_matched_but_not_shown() -> None:
    settings = HttpSettings(
        url=URL, error_code=("message",), answers={"bad number +15005550006!": "gone"}
    )
    assert decided(settings, b'{"message": "bad number +15005550006!"}', 400) == ("gone", "400")

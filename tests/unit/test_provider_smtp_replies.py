"""What each SMTP reply means, by step, code, enhanced code and words."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.adapters.providers.smtp.replies import (
    ROWS,
    ReplyPatternError,
    ReplyRules,
    Step,
    full_code,
)
from notifier.adapters.providers.smtp.reply import ProtocolError, Reply, ReplyReader
from notifier.adapters.providers.verdict import VerdictName, outcome, printable
from notifier.domain.outcome import Misconfigured, Refused

CREDENTIALS = "credentials"


def meaning(step: Step, reply: str, rules: ReplyRules | None = None) -> str:
    code, _, text = reply.partition(" ")
    result = (rules or ReplyRules()).outcome(step, Reply(int(code), text))
    if isinstance(result, Misconfigured) and result.is_credentials:
        return CREDENTIALS
    return result.name


@pytest.mark.parametrize(
    ("step", "reply", "expected"),
    [
        (Step.GREETING, "554 5.7.1 blocked", "misconfigured"),
        (Step.GREETING, "421 4.3.2 closing", "unavailable"),
        (Step.GREETING, "421 4.7.0 too many errors", "throttled"),
        (Step.EHLO, "504 5.5.2 <vm>: Helo command rejected: need fully-qualified", "misconfigured"),
        (Step.EHLO, "550 invalid HELO name", "misconfigured"),
        (Step.STARTTLS, "454 4.7.0 TLS not available", "unavailable"),
        (Step.AUTH, "535 5.7.8 authentication failed", CREDENTIALS),
        (Step.AUTH, "534 5.7.9 mechanism too weak", CREDENTIALS),
        (Step.AUTH, "538 5.7.11 encryption required", CREDENTIALS),
        (Step.AUTH, "500 what?", CREDENTIALS),
        (Step.AUTH, "454 4.7.0 Temporary authentication failure", "unavailable"),
        (Step.AUTH, "454 4.7.0 Too many login attempts, please try again later", "throttled"),
        (Step.AUTH, "432 4.3.2 Concurrent connections limit exceeded", "throttled"),
        (Step.MAIL, "530 5.7.0 Authentication required", CREDENTIALS),
        (Step.MAIL, "550 5.7.1 Sender address rejected", "misconfigured"),
        (Step.MAIL, "553 5.7.1 <a@b>: Sender address rejected: not owned", "misconfigured"),
        (Step.MAIL, "550 5.1.8 <a@b>: Sender address rejected: Domain not found", "misconfigured"),
        (Step.MAIL, "450 4.1.8 <a@b>: Sender address rejected: Domain not found", "misconfigured"),
        (Step.MAIL, "501 5.1.7 Bad sender address syntax", "misconfigured"),
        (Step.MAIL, "550 no", "misconfigured"),
        (Step.MAIL, "552 5.3.4 Message size exceeds fixed limit", "refused"),
        (Step.MAIL, "452 4.3.1 Insufficient system storage", "throttled"),
        (Step.MAIL, "451 4.3.0 aborted", "unavailable"),
        (Step.MAIL, "421 4.3.2 shutting down", "unavailable"),
        (Step.MAIL, "454 Throttling failure: Maximum sending rate exceeded.", "throttled"),
        (Step.MAIL, "450 4.7.1 Error: too much mail from 192.0.2.1", "throttled"),
        (Step.RCPT, "554 5.7.1 <x@y>: Relay access denied", "misconfigured"),
        (Step.RCPT, "550 relay not permitted", "misconfigured"),
        (Step.RCPT, "454 4.7.1 <x@y>: Relay access denied", "misconfigured"),
        (Step.RCPT, "550 Sender email is not verified", "misconfigured"),
        (Step.RCPT, "550 SMTP AUTH is required for message submission", CREDENTIALS),
        (Step.RCPT, "550 5.7.1 Too many messages, slow down", "throttled"),
        (Step.RCPT, "450 4.7.1 Too many recipients received from the sender", "throttled"),
        (Step.RCPT, "450 4.2.0 Greylisted (SPF pass), see help", "deferred"),
        (Step.RCPT, "503 5.5.1 bad sequence", "unavailable"),
        (Step.AUTH, "421 4.7.0 Too many failed logins", "throttled"),
        (Step.DOT, "550 5.7.509 sending domain does not pass DMARC", "misconfigured"),
        (Step.RCPT, "550 5.7.54 SMTP; Unable to relay recipient", "misconfigured"),
        (Step.RCPT, "504 5.5.2 <vm>: Helo command rejected: need fully-qualified", "misconfigured"),
        (Step.RCPT, "450 4.7.1 <vm>: Helo command rejected: Host not found", "misconfigured"),
        (Step.RCPT, "550 Sender verify failed", "misconfigured"),
        (
            Step.RCPT,
            "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.example",
            "misconfigured",
        ),
        (Step.RCPT, "550 5.7.1 Client was not authenticated", CREDENTIALS),
        (Step.RCPT, "504 5.5.2 <x>: Recipient address rejected: need fully-qualified", "refused"),
        (Step.RCPT, "550 5.7.1 not allowed to send messages to this group", "refused"),
        (Step.RCPT, "452 4.2.2 mailbox full", "deferred"),
        (Step.RCPT, "452 mailbox full", "deferred"),
        (Step.RCPT, "450 4.2.0 <x>: Recipient address rejected: Greylisted", "deferred"),
        (Step.RCPT, "451 4.7.1 Greylisting in action", "deferred"),
        (Step.RCPT, "451 4.7.1 try again later", "deferred"),
        (Step.RCPT, "450 4.7.1 please wait", "deferred"),
        (Step.RCPT, "450 4.2.1 receiving mail at a rate that prevents more", "deferred"),
        (Step.RCPT, "450 4.1.1 <x>: unverified address", "deferred"),
        (Step.RCPT, "451 Temporary local problem - please try later", "deferred"),
        (Step.RCPT, "451 4.3.0 <x>: Temporary lookup failure", "unavailable"),
        (Step.RCPT, "450 4.7.1 rate limit exceeded", "throttled"),
        (Step.RCPT, "421 4.7.0 too many messages", "throttled"),
        (Step.RCPT, "421 4.7.28 unusual rate", "throttled"),
        (Step.RCPT, "451 4.7.650 temporarily rate limited", "throttled"),
        (Step.RCPT, "454 Throttling failure: Daily message quota exceeded.", "throttled"),
        (Step.RCPT, "550 5.4.5 Daily user sending limit exceeded", "throttled"),
        (Step.RCPT, "550 5.1.1 who?", "refused"),
        (Step.RCPT, "552 5.2.2 mailbox full", "refused"),
        (Step.RCPT, "556 5.1.10 null MX", "refused"),
        (Step.RCPT, "550 5.7.1 no", "refused"),
        (Step.RCPT, "554 no", "refused"),
        (Step.DATA, "421 4.3.2 closing", "unavailable"),
        (Step.DATA, "250 ok", "unavailable"),
        (Step.DATA, "554 5.5.1 no valid recipients", "refused"),
        (Step.DOT, "451 4.7.1 Greylisted", "deferred"),
        (Step.DOT, "452 4.2.2 mailbox full", "deferred"),
        (Step.DOT, "452 4.3.1 Insufficient system storage", "throttled"),
        (Step.DOT, "451 4.3.0 queue file write error", "unavailable"),
        (Step.DOT, "454 Throttling failure: Maximum sending rate exceeded.", "throttled"),
        (
            Step.DOT,
            "554 Message rejected: Email address is not verified. The following failed: a@b",
            "misconfigured",
        ),
        (Step.DOT, "550 5.7.26 unauthenticated: neither SPF nor DKIM", "misconfigured"),
        (Step.DOT, "554 5.7.1 spam", "refused"),
        # TLS, credit, accounts: ours
        (Step.MAIL, "530 5.7.0 Must issue a STARTTLS command first", "misconfigured"),
        (Step.MAIL, "451 5.7.3 STARTTLS is required to send mail", "misconfigured"),
        (Step.RCPT, "550 5.7.1 TLS required for relay", "misconfigured"),
        (Step.AUTH, "451 Authentication failed: Maximum credits exceeded", "misconfigured"),
        (Step.RCPT, "550 5.7.1 Invalid credentials for relay [192.0.2.1].", "misconfigured"),
        (Step.RCPT, "553 Relaying disallowed as shop@example.com", "misconfigured"),
        (Step.RCPT, "554 Relay rejected for policy reasons.", "misconfigured"),
        (Step.RCPT, "553 that domain isn't in my list of allowed rcpthosts", "misconfigured"),
        (Step.RCPT, "553 your envelope sender is in my badmailfrom list", "misconfigured"),
        (Step.MAIL, "454 5.7.3 Client does not have permission to submit mail", "misconfigured"),
        (Step.RCPT, "502 5.7.0 Your SMTP account is not yet activated", "misconfigured"),
        (Step.RCPT, '550 Outgoing mail from "a@b" has been suspended.', "misconfigured"),
        (Step.DOT, "550 5.4.6 Unusual sending activity detected", "misconfigured"),
        (Step.DOT, "550 Sender address is not allowed.", "misconfigured"),
        (Step.DOT, "550 The 'From' address you supplied is not a Signature", "misconfigured"),
        (Step.DOT, "550 5.7.1 Unconfigured Sending Domain <example.com>", "misconfigured"),
        (Step.RCPT, "550 5.7.511 Access denied, banned sender[192.0.2.1].", "misconfigured"),
        (Step.RCPT, "550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "misconfigured"),
        (Step.RCPT, "550 5.7.708 traffic not accepted from this IP", "misconfigured"),
        (Step.RCPT, "550 5.7.705 Access denied, tenant has exceeded threshold", "misconfigured"),
        (Step.RCPT, "550 5.7.750 blocked: unregistered domains", "misconfigured"),
        (Step.DOT, "550 5.7.515 does not meet the required authentication level", "misconfigured"),
        (Step.RCPT, "550 Sender host address is listed in zen.example.org", "misconfigured"),
        (Step.RCPT, "550 5.7.1 Sender IP reverse lookup rejected", "misconfigured"),
        (
            Step.RCPT,
            "550 host [192.0.2.1]:56114 is not\npermitted to relay through this server",
            "misconfigured",
        ),
        (Step.DOT, "550 5.7.1 your account has\n5.7.1 been suspended", "misconfigured"),
        # our quotas
        (Step.RCPT, "550 Domain a.b has exceeded the max emails per hour (150)", "throttled"),
        (Step.RCPT, "550 Ip frequency limited", "throttled"),
        (Step.RCPT, "450 mailbox unavailable\nMail send limit exceeded.", "throttled"),
        (Step.DOT, "554 5.2.0 the sender's submission quota was exceeded", "throttled"),
        (Step.DOT, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", "throttled"),
        (Step.DOT, "451 You've exceeded your messaging limits", "throttled"),
        (Step.DOT, "550 5.7.1 The email limit is reached. Please upgrade your plan", "throttled"),
        (Step.DOT, "550 5.7.1 an unusual rate of unsolicited mail", "throttled"),
        (Step.RCPT, "450 4.7.1 user rate limit exceeded", "throttled"),
        # the recipient's
        (Step.DOT, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", "deferred"),
        (Step.RCPT, "451 4.5.1 The recipient has exceeded message rate limit.", "deferred"),
        (Step.RCPT, "554 5.7.1 <x>: Recipient address rejected: Account suspended", "refused"),
        (Step.RCPT, "550 5.2.1 This account has been suspended", "refused"),
        (Step.RCPT, "550 5.1.1 <x>: undeliverable: host said: relay not permitted", "refused"),
        (Step.RCPT, "550 5.7.133 authentication required when sending to this group", "refused"),
        (Step.RCPT, "550 5.7.1 RESOLVER.RST.AuthRequired; authentication required", "refused"),
        (Step.RCPT, "550 5.1.1 User not listed in example.com", "refused"),
        (Step.RCPT, "552 The email account is over quota", "refused"),
        (Step.DOT, "552 5.3.4 Message size exceeds limit per message", "refused"),
        (Step.DOT, "554 5.7.1 contains a URL listed in multi.example.org", "refused"),
    ],
)
def test_each_reply_has_the_outcome_of_its_step(step: Step, reply: str, expected: str) -> None:
    assert meaning(step, reply) == expected


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.code} {row.words[:20]}")
def test_every_row_has_a_note_and_a_verdict(row: object) -> None:
    note, verdict = row.note, row.verdict  # type: ignore[attr-defined]
    assert note
    assert verdict in get_args(VerdictName)


@pytest.mark.parametrize(
    ("key", "reply", "is_found"),
    [
        ("454", "454 4.7.0 no", True),
        ("454", "455 454", False),
        ("4.7.0", "454 4.7.0 no", True),
        ("4.7.0", "454 4.7.1 no", False),
        ("454 4.7.0", "454 4.7.0 no", True),
        ("454 4.7.0", "450 4.7.0 no", False),
        ("5[0-9]{2} .*RELAY", "550 5.7.1 relay", True),
        ("550 5.7.1 .*relay", "550 5.7.1 <x>: Relay access denied", True),
        ("throttling failure", "454 Throttling failure", True),
        ("(?:999)", "554 [IPTS04] 999", True),
    ],
)
def test_a_row_of_the_settings_comes_before_the_table(key: str, reply: str, is_found: bool) -> None:
    rules = ReplyRules({key: "ambiguous"})
    assert (meaning(Step.RCPT, reply, rules) == "ambiguous") is is_found


def test_the_first_row_of_the_settings_wins() -> None:
    rules = ReplyRules({"550 .*full": "deferred", "550": "credentials"})
    assert meaning(Step.RCPT, "550 mailbox full", rules) == "deferred"
    assert meaning(Step.RCPT, "550 no", rules) == CREDENTIALS


@pytest.mark.parametrize("key", ["", "(", "(a)\\1", "(?P<a>b)(?P=a)", "(a)?(?(1)b|c)", "x" * 201])
def test_an_unusable_pattern_is_refused_by_name(key: str) -> None:
    with pytest.raises(ReplyPatternError, match="expected") as caught:
        ReplyRules({key: "refused"})
    assert caught.value.pattern == key


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (550, "5.1.1 a", "550 5.1.1"),
        (550, "4.1.1 a", "550"),
        (550, "5.1.1", "550 5.1.1"),
        (550, "5.1.1a", "550"),
        (550, "who?\n5.1.1 no such user", "550 5.1.1"),
        (250, "ok 2.0.0", "250"),
    ],
)
def test_an_enhanced_code_counts_only_at_the_start_of_a_line_and_in_the_same_class(
    code: int, text: str, expected: str
) -> None:
    assert full_code(Reply(code, text)) == expected


@given(st.sampled_from(Step), st.integers(400, 499), st.text(max_size=50))
def test_a_transient_refusal_is_never_final(step: Step, code: int, text: str) -> None:
    assert not isinstance(ReplyRules().outcome(step, Reply(code, text)), Refused)


@given(st.text(st.characters(), max_size=900), st.integers(1, 300))
def test_printable_text_can_always_be_stored(text: str, limit: int) -> None:
    safe = printable(text, limit)
    assert len(safe) <= limit
    assert "\0" not in safe
    assert "\n" not in safe
    safe.encode()


@pytest.mark.parametrize("verdict", get_args(VerdictName))
def test_every_verdict_is_an_outcome(verdict: VerdictName) -> None:
    assert outcome(verdict, "1").code == "1"


REPLIES = b"250-one\r\n250-two\r\n250 three\r\n354 go\r\n550\r\n421 4.3.2 bye\n"


@given(st.lists(st.integers(0, len(REPLIES)), max_size=8))
def test_replies_are_the_same_however_their_bytes_arrive(cuts: list[int]) -> None:
    reader, edges = ReplyReader(), [0, *sorted(cuts), len(REPLIES)]
    replies = [reply for start, end in pairwise(edges) for reply in reader.feed(REPLIES[start:end])]
    assert replies == [
        Reply(250, "one\ntwo\nthree"),
        Reply(354, "go"),
        Reply(550, ""),
        Reply(421, "4.3.2 bye"),
    ]
    assert reader.is_empty


def test_a_reply_of_100_kilobytes_keeps_its_code_and_the_start_of_its_text() -> None:
    (reply,) = ReplyReader().feed(b"550-5.1.1 no\r\n" + b"550-x\r\n" * 20_000 + b"550 end\r\n")
    assert full_code(reply) == "550 5.1.1"
    (reply,) = ReplyReader().feed(b"550 5.1.1 " + b"x" * 200_000 + b"\r\n")
    assert full_code(reply) == "550 5.1.1"


def test_bytes_that_are_no_utf8_do_not_hide_the_code() -> None:
    (reply,) = ReplyReader().feed(b"550 5.1.1 Empf\xe4nger \xff\xfe\r\n")
    assert full_code(reply) == "550 5.1.1"


@pytest.mark.parametrize("line", [b"HTTP/1.1 400 Bad Request", b"", b"99 no", b"150 no", b"25x"])
def test_a_line_that_is_no_reply_is_an_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        ReplyReader().feed(line + b"\r\n")

"""Which mails `make chaos` sees in what workers sent to a mail server."""

from __future__ import annotations

from tests.chaos.mails import Mail, mails

HELLO = b"EHLO worker\r\n"
TO = b"RCPT TO:<ada@example.com>\r\n"


def envelope(which: str) -> bytes:
    return b"MAIL FROM:<shop@example.com> RET=HDRS ENVID=" + which.encode() + b".1\r\n"


def whole(which: str, *recipients: bytes, text: bytes = b"Subject: s\r\n\r\nb") -> bytes:
    return envelope(which) + b"".join(recipients or (TO,)) + b"DATA\r\n" + text + b"\r\n.\r\n"


def test_each_mail_of_a_session_has_its_id_its_recipients_and_its_text() -> None:
    copy = b"RCPT TO:<copy@example.com>\r\n"
    sent = HELLO + whole("a") + b"RSET\r\n" + whole("b", TO, copy) + b"QUIT\r\n"
    first, second = mails([sent])
    assert first == Mail("a", whole("a").decode())
    assert second == Mail("b", whole("b", TO, copy).decode())


def test_a_refused_mail_has_no_text_and_the_next_one_is_seen() -> None:
    refused = envelope("a") + TO + b"DATA\r\n"
    for between in (b"RSET\r\n", b""):
        assert [mail.id for mail in mails([HELLO + refused + between + whole("b")])] == ["b"]
    assert [mail.id for mail in mails([HELLO + envelope("a") + TO + whole("b")])] == ["b"]


def test_a_mail_without_its_final_dot_is_none() -> None:
    assert list(mails([HELLO + whole("a")[:-3], HELLO])) == []


def test_an_empty_text_is_a_mail_that_shows_nothing() -> None:
    empty = envelope("a") + TO + b"DATA\r\n.\r\n"
    assert list(mails([HELLO + empty + whole("b")])) == [
        Mail("a", empty.decode()),
        Mail("b", whole("b").decode()),
    ]

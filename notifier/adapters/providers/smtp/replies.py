"""What a negative SMTP reply means, by protocol step, reply code, enhanced status code and words.

Sources: RFC 5321 (reply codes), RFC 3463 with its IANA registry (enhanced codes), RFC 4954 (AUTH),
RFC 6647 (greylisting), RFC 7372 (5.7.20 to 5.7.27: SPF, DKIM, reverse DNS); the texts of Postfix,
Exim, Exchange, Gmail and Amazon SES where the code alone does not tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from notifier.adapters.providers.smtp.reply import Reply
from notifier.adapters.providers.verdict import VerdictName, outcome
from notifier.domain.outcome import Outcome


class Step(StrEnum):
    """What the client said last: the reply is the answer to it."""

    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    RSET = "RSET"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "final dot"


HELLO: Final = frozenset({Step.GREETING, Step.EHLO})
OPENING: Final = HELLO | {Step.STARTTLS}
BEFORE_MAIL: Final = OPENING | {Step.AUTH}
RECIPIENT: Final = frozenset({Step.RCPT, Step.DATA, Step.DOT})
"""Servers that check sender and client late (Postfix's `smtpd_delay_reject`) say so at RCPT."""
ANY: Final = frozenset(Step)


@dataclass(frozen=True, slots=True)
class ReplyRow:
    """A row: replies at `steps` whose code and words match mean `verdict`.

    `code` is matched against the whole of `code enhanced`, or of `code` if the text has no enhanced
    code; `words` is searched in the text, ignoring case.
    """

    steps: frozenset[Step]
    code: str
    verdict: VerdictName
    note: str
    words: str = ""


_CONNECTIONS: Final = r"too many .{0,40}(connections|sessions)|concurrent .{0,20}connections"
_QUOTA: Final = (
    r"(hourly|daily|sending) .{0,30}(limit|quota)|(send|e-?mail|messaging) limit|submission quota"
    r"|(mails?|messages) .{0,25}per (minute|hour|day)|frequency limit|unusual rate"
    r"|rate.?limit|throttl|too fast|slow down|too many (messages|mails|e-?mails)"
)
_RATE: Final = (
    r"too (many|much) (failed )?((e-?)?mail|requests|transactions|login"
    r"|recipients (received )?from)|too frequent|rate of|sender thread limit"
    r"|(sending|message|mail|delivery|submission|connection|maximum) .{0,12}rate"
    rf"|{_QUOTA}"
)
_ONE_RECIPIENT: Final = (
    r"the recipient .{0,20}exceeded|receiving mail (at a rate|too)|recipient thread limit"
)
_SESSION: Final = (
    r"(messages?|mails?|transactions?) .{0,30}(per|(in|on) (this|one|a single))"
    r" (session|connection)"
)
_GREYLIST: Final = r"gr[ae]y.?list"
_HELO: Final = r"(helo|ehlo) command rejected|invalid (helo|ehlo)|(helo|ehlo) name"
_CLIENT: Final = (
    r"client host rejected|client host \[?[0-9a-f.:]+\]? blocked|blocked using"
    r"|not allowed to connect|block.?list|black.?list"
    r"|\b(ip|address|host)\b.{0,40} listed (in|at|by|on) \S+\.\w"
    r"|banned sending ip|not accepted from this ip"
    r"|reverse (dns|hostname|lookup)|\bptr\b|cannot find your (reverse )?hostname"
)
_SENDER: Final = (
    r"sender (e-?mail )?(address )?(is )?(rejected|denied|verify failed|not (valid|allowed(?! to)))"
    r"|send as this sender|permissions? to submit mail|banned sender|badmailfrom"
    r"|(sender|address|identit|domain).{0,40}not verified|from'? address .{0,40}(not|rejected)"
    r"|(unconfigured sending|unregistered) domain"
    r"|(fail|not pass).{0,20}\b(spf|dkim|dmarc)|\b(spf|dkim|dmarc)\b.{0,20}(fail|reject|required)"
    r"|unauthenticated e?mail|required authentication level"
    r"|not (authori[sz]ed|allowed|permitted) to send(?! .{0,20}\bto\b)"
    r"|(sending|outgoing mail) .{0,60}(paused|suspended|disabled)|unusual sending activity"
    r"|your (\w+ )?account .{0,20}(suspended|paused|disabled|blocked|not (yet )?activ)"
    r"|tenant has exceeded"
)
_RELAY: Final = (
    r"relay(ing)? (access )?(is )?(not|denied|prohibited|forbidden|rejected|disallowed)"
    r"|unable to relay|not (permitted|allowed) to relay|do not relay|relay access"
    r"|credentials for relay|allowed rcpthosts"
)
_LOGIN: Final = (
    r"authentication (is )?required|auth(enticate)? (first|(is )?required)|not authenticated"
    r"|must (first )?(authenticate|log.?in)|log.?in (first|required)|requires? authentication"
)
_FULL: Final = r"(mail)?box .{0,20}full|over ?quota|quota exceeded|exceed.{0,20}quota"

_TLS: Final = r"starttls( command)? (is )?(required|first)|\btls (is )?required"
_CREDIT: Final = r"credits? exceeded|(insufficient|not enough) (credit|balance|funds)"

ROWS: Final = (
    ReplyRow(
        ANY, r"[45]\d\d( .*)?", "misconfigured", "TLS required: set security to starttls", _TLS
    ),
    ReplyRow(ANY, r"[45]\d\d( .*)?", "misconfigured", "no credit (SendGrid)", _CREDIT),
    ReplyRow(ANY, r"53[0458]( .*)?", "credentials", "RFC 4954 6: our login is missing or wrong"),
    ReplyRow(ANY, r"432 4\.7\.12", "credentials", "RFC 4954 6: a password transition is needed"),
    ReplyRow(
        BEFORE_MAIL,
        r"4\d\d( .*)?",
        "throttled",
        "too many connections; see the worker's own limit of connections in design.md",
        _CONNECTIONS,
    ),
    ReplyRow(BEFORE_MAIL, r"4\d\d( .*)?", "throttled", "the words name a rate", _RATE),
    ReplyRow(frozenset({Step.AUTH}), r"4\d\d( .*)?", "unavailable", "RFC 4954 6: login, later"),
    ReplyRow(frozenset({Step.AUTH}), r"\d\d\d( .*)?", "credentials", "RFC 4954 6: login refused"),
    ReplyRow(HELLO, r"4\d\d 4\.7\.\d+", "throttled", "policy of the server, before any mail"),
    ReplyRow(OPENING, r"4\d\d( .*)?", "unavailable", "the server is not ready"),
    ReplyRow(OPENING, r"5\d\d( .*)?", "misconfigured", "the server takes no session from us"),
    ReplyRow(
        RECIPIENT,
        r"5\d\d 5\.(1\.1|1\.6|1\.10|2\.1)",
        "gone",
        "RFC 3463: no such mailbox any more",
    ),
    ReplyRow(
        RECIPIENT,
        r"5\d\d( .*)?",
        "refused",
        "Exchange: a mailbox or group that takes no mail from outside",
        r"^5\.7\.1[23]\d |RESOLVER\.RST",
    ),
    ReplyRow(
        ANY,
        r"[45]\d\d( .*)?",
        "misconfigured",
        "our EHLO name: set ehlo_name (Postfix: Helo command rejected)",
        _HELO,
    ),
    ReplyRow(ANY, r"504 5\.5\.2", "misconfigured", "our EHLO name (Postfix)", r"helo|ehlo"),
    ReplyRow(
        ANY,
        r"[45]\d\d [45]\.7\.2[0-7]",
        "misconfigured",
        "RFC 7372: SPF, DKIM or reverse DNS of our domain or address",
    ),
    ReplyRow(ANY, r"4\d\d 4\.1\.[78]", "misconfigured", "RFC 3463: our sender address"),
    ReplyRow(ANY, r"5\d\d 5\.1\.[78]", "misconfigured", "RFC 3463: our sender address"),
    ReplyRow(ANY, r"5\d\d 5\.7\.(3|8|9|57)", "credentials", "RFC 4954 and Exchange: our login"),
    ReplyRow(
        ANY, r"[45]\d\d( .*)?", "credentials", "authentication required, by its words", _LOGIN
    ),
    ReplyRow(
        ANY,
        r"[45]\d\d( .*)?",
        "misconfigured",
        "relaying needs a login or our address (Postfix, Exim, Exchange)",
        _RELAY,
    ),
    ReplyRow(
        ANY,
        r"[45]\d\d( .*)?",
        "misconfigured",
        "our sender address or account (Postfix, Exim, Exchange, Amazon SES)",
        _SENDER,
    ),
    ReplyRow(
        ANY,
        r"[45]\d\d( .*)?",
        "misconfigured",
        "our network address: reverse DNS or a block list",
        _CLIENT,
    ),
    ReplyRow(
        RECIPIENT, r"4\d\d 4\.[12]\.\d+", "deferred", "RFC 3463: this mailbox, later (full, busy)"
    ),
    ReplyRow(
        frozenset({Step.MAIL}) | RECIPIENT,
        r"4\d\d( .*)?",
        "deferred",
        "RFC 6647: greylisting of this sender and recipient",
        _GREYLIST,
    ),
    ReplyRow(
        RECIPIENT, r"45[0-2]( 4\.[0357].*)?", "deferred", "this mailbox is full, later", _FULL
    ),
    ReplyRow(
        RECIPIENT,
        r"4\d\d( .*)?",
        "deferred",
        "this mailbox gets too much, later (Exchange, Gmail, Yandex)",
        _ONE_RECIPIENT,
    ),
    ReplyRow(
        ANY, r"4\d\d( .*)?", "throttled", "the words name a rate, as Amazon SES's 454 does", _RATE
    ),
    ReplyRow(ANY, r"4\d\d( .*)?", "throttled", "too many connections", _CONNECTIONS),
    ReplyRow(ANY, r"421 4\.7\.\d+", "throttled", "policy of the server, for all that we send"),
    ReplyRow(ANY, r"421( .*)?", "unavailable", "RFC 5321: the server closes the session"),
    ReplyRow(
        RECIPIENT,
        r"4\d\d 4\.7\.[01]",
        "deferred",
        "policy for this recipient, later; greylisting without the word",
    ),
    ReplyRow(ANY, r"4\d\d 4\.7\.\d+", "throttled", "policy of the server, for all that we send"),
    ReplyRow(ANY, r"452 4\.3\.1", "throttled", "RFC 3463: the server has too little room, later"),
    ReplyRow(ANY, r"4\d\d 4\.3\.\d+", "unavailable", "RFC 3463: state of the mail system"),
    ReplyRow(frozenset({Step.RCPT}), r"4\d\d( .*)?", "deferred", "RFC 5321: this recipient, later"),
    ReplyRow(
        frozenset({Step.DATA, Step.DOT}),
        r"450( .*)?",
        "deferred",
        "RFC 5321: the mailbox is unavailable, later",
    ),
    ReplyRow(ANY, r"45[02]( .*)?", "throttled", "RFC 5321: busy, or too little room, later"),
    ReplyRow(ANY, r"4\d\d( .*)?", "unavailable", "RFC 5321: a transient failure of the server"),
    ReplyRow(
        ANY,
        r"5\d\d( .*)?",
        "throttled",
        "a quota of our account (Gmail's 550 5.4.5)",
        _QUOTA,
    ),
    ReplyRow(
        frozenset({Step.MAIL}), r"5\d\d 5\.(3\.4|6\.7)", "refused", "size or alphabet of this mail"
    ),
    ReplyRow(
        frozenset({Step.MAIL}), r"5\d\d( .*)?", "misconfigured", "our sender address or account"
    ),
    ReplyRow(
        frozenset({Step.RCPT, Step.DATA}),
        r"503( .*)?",
        "unavailable",
        "RFC 5321: out of step with the server",
    ),
    ReplyRow(ANY, r"5\d\d( .*)?", "refused", "RFC 5321: a permanent refusal of this mail"),
    ReplyRow(ANY, r".*", "unavailable", "a reply that does not answer the command"),
)
"""The replies, first match wins. Rows of `[providers.<name>.replies]` come before them."""


def is_about_connections(step: Step, reply: Reply) -> bool:
    """Whether the server says that it has too many connections already."""
    is_transient = reply.code // 100 == 4  # noqa: PLR2004 RFC 5321 4.2.1
    return is_transient and step in BEFORE_MAIL and bool(_ABOUT_CONNECTIONS.search(_words(reply)))


def is_about_session(reply: Reply) -> bool:
    """Whether the server says that it takes no more mails over this session."""
    return bool(_ABOUT_SESSION.search(_words(reply)))


def full_code(reply: Reply) -> str:
    """`550 5.1.1`, or `550` when the text carries no enhanced code of the same class.

    The enhanced code starts a line of the text.
    """
    for found in _ENHANCED.finditer(reply.text):
        if found[1][0] == str(reply.code)[0]:
            return f"{reply.code} {found[1]}"
    return str(reply.code)


def _words(reply: Reply) -> str:
    """The start of the text in one line: servers break sentences at any word."""
    return _LINE_BREAK.sub(" ", reply.text[:_MAX_SEARCHED])


class ReplyRules:
    """Finds the outcome of a negative reply: the user's rows first, then ROWS."""

    def __init__(self, replies: Mapping[str, VerdictName] | None = None) -> None:
        """Raises ReplyPatternError for a key that is no code and no usable regular expression."""
        self._own = [_OwnRow.parse(key, verdict) for key, verdict in (replies or {}).items()]

    def outcome(self, step: Step, reply: Reply) -> Outcome:
        """The outcome of a reply that is not the expected one."""
        code = full_code(reply)
        return outcome(self._verdict(step, code, reply), code, reply.text)

    def _verdict(self, step: Step, code: str, reply: Reply) -> VerdictName:
        text = _words(reply)
        for own in self._own:
            if own.matches(code, f"{reply.code} {text}"):
                return own.verdict
        for row in _COMPILED[step]:
            if row.code.fullmatch(code) and (row.words is None or row.words.search(text)):
                return row.verdict
        return "unavailable"


class ReplyPatternError(ValueError):
    """A key of `[providers.<name>.replies]` that cannot be used; `pattern` is the key."""

    def __init__(self, pattern: str, problem: str) -> None:
        super().__init__(problem)
        self.pattern = pattern


@dataclass(frozen=True, slots=True)
class _OwnRow:
    """A row of the settings. `codes` are compared, `pattern` is searched in code and text."""

    verdict: VerdictName
    codes: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, key: str, verdict: VerdictName) -> _OwnRow:
        if _CODES.fullmatch(key):
            return cls(verdict, tuple(key.split()))
        return cls(verdict, pattern=_compiled(key))

    def matches(self, code: str, text: str) -> bool:
        if self.pattern is not None:
            return self.pattern.search(text) is not None
        return set(self.codes) <= set(code.split())


def _compiled(pattern: str) -> re.Pattern[str]:
    if not pattern or len(pattern) > MAX_PATTERN_LENGTH:
        problem = f"expected a reply code or pattern of 1 to {MAX_PATTERN_LENGTH} characters"
        raise ReplyPatternError(pattern, f"{problem}, got {len(pattern)}")
    if _NEARLY_CODE.fullmatch(pattern):  # as an expression, 4xx matches nothing and 4* everything
        problem = r"expected a reply code like 454, or a regular expression like 45\d"
        raise ReplyPatternError(pattern, problem)
    if _OTHER_CODE.fullmatch(pattern):
        problem = "expected a negative reply code (400 to 599), an enhanced code (4.x.x or 5.x.x)"
        raise ReplyPatternError(
            pattern,
            f"{problem}, or both of one class; to look for it in the text write (?:{pattern})",
        )
    if _BACK_REFERENCE.search(pattern):
        raise ReplyPatternError(pattern, "expected a regular expression without back-references")
    try:
        return re.compile(pattern, re.IGNORECASE | re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        problem = f"expected a reply code, an enhanced code or a regular expression: {error}"
        raise ReplyPatternError(pattern, problem) from error


@dataclass(frozen=True, slots=True)
class _CompiledRow:
    code: re.Pattern[str]
    words: re.Pattern[str] | None
    verdict: VerdictName


def _compiled_row(row: ReplyRow) -> _CompiledRow:
    words = re.compile(row.words, re.IGNORECASE | re.DOTALL) if row.words else None
    return _CompiledRow(re.compile(row.code, re.DOTALL), words, row.verdict)


MAX_PATTERN_LENGTH: Final = 200
_MAX_SEARCHED: Final = 1000
_ENHANCED: Final = re.compile(r"^([245]\.\d{1,3}\.\d{1,3})(?:\s|$)", re.MULTILINE)
_LINE_BREAK: Final = re.compile(r"\s*\n(?:[245]\.\d{1,3}\.\d{1,3}(?= ))?\s*")
_ABOUT_CONNECTIONS: Final = re.compile(_CONNECTIONS, re.IGNORECASE)
_ABOUT_SESSION: Final = re.compile(_SESSION, re.IGNORECASE)
_CODES: Final = re.compile(
    r"[45]\d\d|[45]\.\d{1,3}\.\d{1,3}|([45])\d\d \1\.\d{1,3}\.\d{1,3}", re.ASCII
)
_OTHER_CODE: Final = re.compile(r"\d{3}|\d\.\d{1,3}\.\d{1,3}|\d{3} \d\.\d{1,3}\.\d{1,3}", re.ASCII)
"""A code that no negative reply has. Only one that _CODES does not match is compared with it."""
_NEARLY_CODE: Final = re.compile(r"[2-5]\d?[xX*]{1,2}|[2-5]\d\d\*", re.ASCII)
_BACK_REFERENCE: Final = re.compile(r"\\[1-9]|\(\?P=|\(\?\(")
_COMPILED: Final[Mapping[Step, tuple[_CompiledRow, ...]]] = {
    step: tuple(_compiled_row(row) for row in ROWS if step in row.steps) for step in Step
}

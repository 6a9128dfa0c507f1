"""What a request without an answer means: how far it got decides whether it may have been sent.

Nothing was sent while the request had no connection, and nothing is carried out while a part of it
is missing. Once all of it was written, it may have been carried out, whatever happens then.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import pycurl

from notifier.adapters.providers.http.transport import E_SSL_CLIENTCERT, Failure, Step
from notifier.adapters.providers.verdict import VerdictName, outcome, unsendable
from notifier.domain.outcome import Outcome, Unavailable

_ANY: Final[frozenset[int]] = frozenset()
_UNTRUSTED: Final = frozenset(
    {
        pycurl.E_PEER_FAILED_VERIFICATION,
        pycurl.E_SSL_ISSUER_ERROR,
        pycurl.E_SSL_INVALIDCERTSTATUS,
        pycurl.E_SSL_CACERT_BADFILE,
    }
)
_TLS: Final = frozenset({pycurl.E_SSL_CONNECT_ERROR, pycurl.E_SSL_CERTPROBLEM, E_SSL_CLIENTCERT})
_BROKEN: Final = frozenset({pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR, E_SSL_CLIENTCERT}) | _TLS
_TIMEOUT: Final = frozenset({pycurl.E_OPERATION_TIMEDOUT})
_URL: Final = frozenset({pycurl.E_URL_MALFORMAT, pycurl.E_UNSUPPORTED_PROTOCOL})
_OUR_CERTIFICATE: Final = re.compile(
    r"alert (?:bad |unsupported )?certificate(?: required| revoked| expired| unknown)?\b"
    r"|alert unknown ca\b|certificate required",
    re.IGNORECASE,
)
_NO_TLS: Final = re.compile(
    r"wrong version number|packet length too long|http request|(unknown|unsupported) protocol"
    r"|alert (handshake failure|protocol version|insufficient security|unrecognized name)",
    re.IGNORECASE,
)


class FailureRow(NamedTuple):
    """What happened, up to which step, and its outcome. No `errors` means any."""

    what: str
    steps: tuple[Step, ...]
    errors: frozenset[int]
    verdict: VerdictName
    code: str
    note: str = ""
    text: re.Pattern[str] | None = None
    proxy_statuses: range = range(0)


_CONNECTING: Final = (Step.CONNECT,)
_CONNECTED: Final = (Step.WRITE, Step.PART)
_ALL: Final = (Step.CONNECT, Step.WRITE, Step.PART, Step.WHOLE)
FAILURES: Final[tuple[FailureRow, ...]] = (
    FailureRow(
        "no connection free", (Step.WAIT,), _ANY, "unavailable", "no_connection", "spends no try"
    ),
    FailureRow(
        "our certificate refused, or one required", _ALL, _BROKEN, "credentials",
        "client_certificate", "the server refuses it before it reads the request",
        text=_OUR_CERTIFICATE,
    ),
    FailureRow(
        "server's certificate not trusted", _CONNECTING, _UNTRUSTED, "misconfigured",
        "tls_certificate", "`ca_file`",
    ),
    FailureRow(
        "TLS not agreed on, or https to a port without TLS", _CONNECTING, _TLS,
        "misconfigured", "tls", text=_NO_TLS,
    ),
    FailureRow(
        "our certificate or key unusable", _CONNECTING, frozenset({pycurl.E_SSL_CERTPROBLEM}),
        "credentials", "client_certificate",
    ),
    FailureRow(
        "proxy answers CONNECT with 407", _CONNECTING, _ANY, "credentials", "proxy",
        proxy_statuses=range(407, 408),
    ),
    FailureRow(
        "proxy answers CONNECT with 429", _CONNECTING, _ANY, "throttled", "proxy",
        proxy_statuses=range(429, 430),
    ),
    FailureRow(
        "proxy answers CONNECT with another 3xx or 4xx", _CONNECTING, _ANY, "misconfigured",
        "proxy", proxy_statuses=range(300, 500),
    ),
    FailureRow("URL is none", _CONNECTING, _URL, "refused", "template"),
    FailureRow("time-out", _CONNECTING, _TIMEOUT, "unavailable", "timeout"),
    FailureRow(
        "name not found, connection refused, TLS or proxy failed", _CONNECTING, _ANY,
        "unavailable", "connection",
    ),
    FailureRow("time-out", _CONNECTED, _TIMEOUT, "unavailable", "timeout"),
    FailureRow(
        "connection lost", _CONNECTED, _ANY, "unavailable", "disconnected",
        "a kept connection: repeated once on a new one",
    ),
    FailureRow("time-out", (Step.WHOLE,), _TIMEOUT, "ambiguous", "timeout"),
    FailureRow(
        "connection lost, or no HTTP", (Step.WHOLE,), _ANY, "ambiguous", "disconnected",
        "before the end of the status line; after it the status decides",
    ),
)  # fmt: skip
"""First match wins. The step is the last one that was reached."""


def failure_outcome(failure: Failure) -> Outcome:
    """The outcome of a request without an answer."""
    row = row_of(failure)
    if failure.step is Step.WAIT:
        return Unavailable(code=row.code, detail=failure.text, is_local=True)
    if row.verdict == "refused":  # without an answer nobody but us can have refused it
        return unsendable(row.code, failure.text)
    return outcome(row.verdict, row.code, failure.text)


def row_of(failure: Failure) -> FailureRow:
    """The row of FAILURES that the failure belongs to."""
    return next(row for row in FAILURES if _matches(row, failure))


def may_repeat(failure: Failure) -> bool:
    """Whether a kept connection was closed before the whole request was written to it."""
    return failure.is_reused and failure.step in (Step.WRITE, Step.PART)


def _matches(row: FailureRow, failure: Failure) -> bool:
    return (
        failure.step in row.steps
        and (not row.errors or failure.error in row.errors)
        and (row.text is None or row.text.search(failure.text) is not None)
        and (not row.proxy_statuses or failure.proxy_status in row.proxy_statuses)
    )

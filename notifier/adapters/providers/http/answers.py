"""What an HTTP response means: the settings of the provider, then the table of statuses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from notifier.adapters.providers.http.responses import (
    as_text,
    body_text,
    is_code,
    json_document,
    values_at,
)
from notifier.adapters.providers.http.settings import HttpSettings, SuccessSettings
from notifier.adapters.providers.http.transport import Answer
from notifier.adapters.providers.verdict import VerdictName
from notifier.domain.errors import ConfigError

ANY_CODE: Final = "*"
_STATUSES: Final = re.compile(r"([2-5])xx|([2-5][0-9]{2})(?:-([2-5][0-9]{2}))?", re.IGNORECASE)
"""An informational status (1xx) is never the last one."""
_NEARLY_STATUSES: Final = re.compile(r"[0-9]{1,2}[xX*]{1,2}|[0-9]{3} *- *[0-9]*|[xX]{3}|1[0-9]{2}")
_EXPRESSION: Final = re.compile(r"/(.+)/", re.DOTALL)


class StatusRow(NamedTuple):
    """The outcome of some statuses, and why. With `text` only of those whose body has it."""

    statuses: range
    verdict: VerdictName
    note: str
    text: re.Pattern[str] | None = None


STATUSES: Final[tuple[StatusRow, ...]] = (
    StatusRow(range(200, 300), "accepted", "with `success`: if the body says so, too"),
    StatusRow(range(300, 400), "misconfigured", "redirects are not followed: correct the URL"),
    StatusRow(
        range(400, 401),
        "misconfigured",
        "if the body says that the port expects TLS: https (nginx, Apache, Go)",
        re.compile(
            r"plain HTTP (request was sent )?to (HTTPS|an SSL-enabled server) port"
            r"|HTTP request to an HTTPS server",
            re.IGNORECASE,
        ),
    ),
    StatusRow(
        range(400, 401),
        "credentials",
        "if the body says that our certificate is missing or refused: cert_file (nginx)",
        re.compile(r"No required SSL certificate was sent|The SSL certificate error"),
    ),
    StatusRow(range(401, 402), "credentials", ""),
    StatusRow(range(402, 403), "misconfigured", "no credit"),
    StatusRow(range(403, 404), "credentials", ""),
    StatusRow(range(404, 407), "misconfigured", "wrong URL, method or Accept header"),
    StatusRow(range(407, 408), "credentials", "those for the proxy"),
    StatusRow(range(408, 409), "unavailable", "the server did not wait for the request"),
    StatusRow(range(409, 410), "deferred", "a request with the same Idempotency-Key is under way"),
    StatusRow(range(410, 411), "gone", "the recipient no longer exists"),
    StatusRow(range(411, 412), "misconfigured", "a body is required: wrong method"),
    StatusRow(range(415, 416), "misconfigured", "wrong Content-Type"),
    StatusRow(range(421, 422), "unavailable", "wrong connection"),
    StatusRow(range(423, 424), "deferred", "the resource is locked"),
    StatusRow(range(425, 426), "unavailable", "the request came before the end of the handshake"),
    StatusRow(range(426, 427), "misconfigured", "another protocol is required"),
    StatusRow(range(429, 430), "throttled", ""),
    StatusRow(range(400, 500), "refused", "the same request would get the same response"),
    StatusRow(range(501, 502), "misconfigured", "the server does not know the method"),
    StatusRow(range(505, 506), "misconfigured", "the server does not speak this version of HTTP"),
    StatusRow(range(511, 512), "misconfigured", "the network requires a login"),
    StatusRow(range(500, 600), "unavailable", "502, 504: a gateway may have sent the request on"),
)
"""By status, first match wins. RFC 9110 15, RFC 8470 (425), RFC 6585 (429, 511), RFC 4918 (423)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a response means. `code` is the provider's own code, the status if it sent none."""

    verdict: VerdictName
    code: str
    document: object = None


class AnswerTable:
    """Decides what responses mean.

    In the order of precedence: a value at a path, an error code, an expression that the body
    matches, any error code (`*`), the status, `success`, STATUSES.
    """

    def __init__(self, name: str, settings: HttpSettings) -> None:
        """Read the settings. Raises ConfigError for those that cannot work."""
        self._key = f"providers.{name}"
        if settings.reference:
            self._check_path(settings.reference, "reference")
        for code_path in settings.error_code:
            self._check_path(code_path, "error_code")
        self._code_paths = settings.error_code
        self._success = _Success.of(name, settings.success)
        if settings.success is not None and settings.success.path:
            self._check_path(settings.success.path, "success.path")
        self._codes: dict[str, VerdictName] = {}
        self._values: dict[tuple[str, str], VerdictName] = {}
        self._expressions: list[tuple[re.Pattern[str], VerdictName]] = []
        self._statuses: list[tuple[range, VerdictName]] = []
        for key, verdict in settings.answers.items():
            self._add(f"{self._key}.answers.{key}", key, verdict)
        self._statuses.sort(key=_width)
        if self._codes and not self._code_paths:
            raise ConfigError(
                f"expected paths of the codes that answers names: {', '.join(self._codes)}",
                key=f"{self._key}.error_code",
            )

    def decide(self, answer: Answer, recipient: str) -> Decision:
        """What the response to one notification means."""
        document = json_document(answer.body) if answer.body else None
        found = [value for path in self._code_paths for value in values_at(document, path)]
        named = self._named(answer, document, found)
        codes = [named[0], *found] if named else found
        shown = next((code for code in codes if is_code(code, recipient)), "")
        verdict = named[1] if named else self._unnamed(answer, document)
        return Decision(verdict, shown or str(answer.status), document)

    def _check_path(self, path: str, key: str) -> None:
        if re.search(r"[\[\]]|^\$|^\.|\.\.|\.$|^\s|\s$|^$", path):
            raise ConfigError(
                f"expected a path like messages.0.status or messages.*.status, received {path!r}",
                key=f"{self._key}.{key}",
            )

    def _add(self, key: str, name: str, verdict: VerdictName) -> None:
        path, is_value, value = name.rpartition("=")
        if name != name.strip():
            raise ConfigError("no code has blanks around it; remove them", key=key)
        if expression := _EXPRESSION.fullmatch(name):
            self._expressions.append((_compiled(expression[1], key), verdict))
        elif statuses := _STATUSES.fullmatch(name):
            self._statuses.append((_range_of(statuses, key), verdict))
        elif _NEARLY_STATUSES.fullmatch(name):
            raise ConfigError("expected statuses from 200 on, like 404, 4xx or 500-599", key=key)
        elif is_value and path:
            self._check_path(path, f"answers.{name}")
            self._values[path, value] = verdict
        else:
            self._codes[name] = verdict

    def _named(
        self, answer: Answer, document: object, codes: Sequence[str]
    ) -> tuple[str, VerdictName] | None:
        """The code and outcome that the settings name; the code is empty for a status."""
        named = next(self._by_body(answer, document, codes), None)
        if named is not None or self._is_success(answer, document):
            return named
        may_be_error = self._success is not None or verdict_of(answer.status) != "accepted"
        if codes and may_be_error and ANY_CODE in self._codes:
            return codes[0], self._codes[ANY_CODE]
        verdicts = (verdict for statuses, verdict in self._statuses if answer.status in statuses)
        verdict = next(verdicts, None)
        return None if verdict is None else ("", verdict)

    def _by_body(
        self, answer: Answer, document: object, codes: Sequence[str]
    ) -> Iterator[tuple[str, VerdictName]]:
        for (path, value), verdict in self._values.items():
            if value in values_at(document, path):
                yield value, verdict
        for code in codes:
            if code in self._codes and code != ANY_CODE:
                yield code, self._codes[code]
        text = body_text(answer.body) if self._expressions else ""
        for expression, verdict in self._expressions:
            if found := expression.search(text):
                yield found[found.lastindex or 0] or "", verdict

    def _is_success(self, answer: Answer, document: object) -> bool:
        return self._success is not None and self._success.is_met(answer, document)

    def _unnamed(self, answer: Answer, document: object) -> VerdictName:
        verdict = verdict_of(answer.status, answer.body)
        if verdict != "accepted" or self._success is None:
            return verdict
        if self._is_success(answer, document):
            return "accepted"
        is_readable = answer.is_whole and (document is not None or not self._success.path)
        return self._success.otherwise if is_readable else "ambiguous"


@dataclass(frozen=True, slots=True)
class _Success:
    """What the body of an accepting response looks like."""

    path: str
    values: frozenset[str]
    text: re.Pattern[str] | None
    otherwise: VerdictName

    @classmethod
    def of(cls, name: str, settings: SuccessSettings | None) -> _Success | None:
        if settings is None:
            return None
        key = f"providers.{name}.success"
        if bool(settings.path) == bool(settings.text):
            raise ConfigError("expected either path or text", key=key)
        if bool(settings.path) != bool(settings.values):
            raise ConfigError("expected values at the path", key=f"{key}.values")
        text = _compiled(settings.text, f"{key}.text") if settings.text else None
        values = frozenset(map(as_text, settings.values))
        return cls(settings.path, values, text, settings.otherwise)

    def is_met(self, answer: Answer, document: object) -> bool:
        """Whether a 2xx response accepts: all values at the path are among `values`."""
        if verdict_of(answer.status) != "accepted":
            return False
        if self.text is not None:
            return self.text.search(body_text(answer.body)) is not None
        found = values_at(document, self.path)
        return bool(found) and self.values.issuperset(found)


def verdict_of(status: int, body: bytes = b"") -> VerdictName:
    """The outcome of a status by STATUSES; ambiguous for one that HTTP does not have."""
    return next((row.verdict for row in STATUSES if _matches(row, status, body)), "ambiguous")


def _matches(row: StatusRow, status: int, body: bytes) -> bool:
    if status not in row.statuses:
        return False
    return row.text is None or row.text.search(body_text(body)) is not None


def _compiled(expression: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"not a regular expression: {error}", key=key) from error


def _range_of(statuses: re.Match[str], key: str) -> range:
    hundreds, first, last = statuses.groups()
    if hundreds:
        return range(int(hundreds) * 100, int(hundreds) * 100 + 100)
    found = range(int(first), int(last or first) + 1)
    if not found:
        raise ConfigError("expected the lower status first", key=key)
    return found


def _width(entry: tuple[range, VerdictName]) -> int:
    return len(entry[0])

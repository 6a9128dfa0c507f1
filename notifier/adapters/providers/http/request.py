"""Renders an Envelope as one HTTP request from the templates of the settings."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, quote_plus

import msgspec
from minijinja import Environment, TemplateError
from yarl import URL

from notifier.adapters.providers.http.files import content_with_files
from notifier.adapters.providers.http.settings import HttpSettings
from notifier.adapters.providers.settings import check_login
from notifier.domain.errors import ConfigError
from notifier.ports.provider import Envelope

_FUEL: Final = 100_000
_BYTES_PER_FUEL: Final = 3
"""Of files: a template may write each of them several times. One unit writes about 16 bytes."""
_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_VARIABLES: Final = frozenset(
    {"recipient", "recipient_name", "id", "claim", "channel", "priority", "content"}
)
_CONTENT: Final = frozenset(
    {
        *("subject", "body", "html", "data"),
        *("from", "reply_to", "cc", "bcc", "headers", "attachments", "mime"),
    }
)
_FUNCTIONS: Final = frozenset(
    {"caller", "cycler", "debug", "dict", "joiner", "loop", "namespace", "range", "self", "super"}
)
_SAMPLE: Final[Mapping[str, object]] = {
    "recipient_name": "Ada",
    "id": "00000000-0000-7000-8000-000000000000",
    "claim": 1,
    "channel": "email",
    "priority": "high",
    "content": {"subject": "1", "body": "1", "html": "1"},
}
_EXPRESSION: Final = re.compile(r"\{[{%#]")
_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"}
)
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 5.6.2


class Unrenderable(Exception):
    """The templates cannot be rendered with this notification."""


@dataclass(frozen=True, slots=True)
class Request:
    """A rendered request. `body` is None when neither `form` nor `json` is set."""

    url: str
    headers: Mapping[str, str]
    body: bytes | None


class Templates:
    """The compiled templates of one provider.

    An undefined name is an error unless the template gives a default. A template that loops
    endlessly runs out of fuel.
    """

    def __init__(self, name: str, settings: HttpSettings) -> None:
        """Compile the templates. Raises ConfigError with the key of an unusable setting."""
        self._key = f"providers.{name}"
        self._engine = Environment(
            undefined_behavior="strict", fuel=_FUEL, auto_escape_callback=lambda _: False
        )
        self._engine.add_filter("tojson", _tojson)
        self._engine.add_filter("urlencode", _urlencode)
        self._fixed: dict[str, str] = {}
        self._headers = self._add_all("headers", settings.headers)
        self._form = None if settings.form is None else self._add_all("form", settings.form)
        self._fields = [quote_plus(field) for field in self._form or ()]
        self._encoded = {name: quote_plus(value) for name, value in self._fixed.items()}
        self._add("url", settings.url)
        self._has_json = settings.json is not None
        if settings.json is not None:
            self._add("json", settings.json)
        self._check(settings)
        self._fixed_url = self._check_fixed_url()
        self._authorization = _basic_auth(settings)

    def render(self, envelope: Envelope) -> Request:
        """Render the request for one notification. Raises Unrenderable."""
        variables: dict[str, object] = {
            "recipient": envelope.recipient,
            "recipient_name": envelope.content.get("recipient_name", ""),
            "id": str(envelope.id),
            "claim": envelope.claim,
            "channel": str(envelope.queue.channel),
            "priority": str(envelope.queue.priority),
            "content": content_with_files(envelope),
        }
        if envelope.files:
            self._engine.fuel = _FUEL + sum(map(len, envelope.files.values())) // _BYTES_PER_FUEL
        try:
            return Request(
                self._url(variables), self._all_headers(variables, envelope), self._body(variables)
            )
        except (TemplateError, ValueError, TypeError) as error:  # ValueError: Unicode, URL, JSON
            raise Unrenderable(_message(error)) from error
        finally:
            if envelope.files:
                self._engine.fuel = _FUEL

    def check_json(self, recipient: str) -> None:
        """Raises ConfigError if `json` renders no JSON for a notification whose content is numbers.

        Numbers need no quotes. What needs data of the content is not checked.
        """
        if not self._has_json:
            return
        try:
            text = self._rendered("json", {**_SAMPLE, "recipient": recipient})
        except (TemplateError, ValueError, TypeError):
            return
        if not _is_json(text):
            raise ConfigError(
                f"renders no JSON, for example for the recipient {recipient}; expected JSON in "
                "which each value is passed through tojson: {{ recipient|tojson }}",
                key=f"{self._key}.json",
            )

    def _url(self, variables: Mapping[str, object]) -> str:
        return self._fixed_url or _checked_url(self._rendered("url", variables))

    def _all_headers(self, variables: Mapping[str, object], envelope: Envelope) -> dict[str, str]:
        headers = {"Idempotency-Key": str(envelope.id), "Notifier-Claim": str(envelope.claim)}
        if self._form is not None or self._has_json:
            headers["Content-Type"] = _JSON if self._has_json else _FORM
        for header, template in self._headers.items():
            value = self._rendered(template, variables)
            if _CONTROL.search(value):
                raise Unrenderable(f"headers.{header}: a header must not contain line breaks")
            for replaced in [name for name in headers if name.lower() == header.lower()]:
                del headers[replaced]
            headers[header] = value
        if self._authorization:
            headers["Authorization"] = self._authorization
        return headers

    def _body(self, variables: Mapping[str, object]) -> bytes | None:
        if self._form is not None:
            parts = (
                self._encoded.get(template) or quote_plus(self._rendered(template, variables))
                for template in self._form.values()
            )
            return "&".join(map("=".join, zip(self._fields, parts, strict=True))).encode()
        if self._has_json:
            body = self._rendered("json", variables).encode()
            msgspec.json.decode(body, type=msgspec.Raw)
            return body
        return None

    def _rendered(self, template: str, variables: Mapping[str, object]) -> str:
        fixed = self._fixed.get(template)
        return self._engine.render_template(template, **variables) if fixed is None else fixed

    def _add_all(self, kind: str, templates: Mapping[str, str]) -> dict[str, str]:
        return {name: self._add(f"{kind}.{name}", source) for name, source in templates.items()}

    def _add(self, template: str, source: str) -> str:
        try:
            self._engine.add_template(template, source)
        except TemplateError as error:
            raise ConfigError(
                f"not a template: {_message(error)}", key=f"{self._key}.{template}"
            ) from error
        self._check_names(template)
        if not _EXPRESSION.search(source):
            self._fixed[template] = self._engine.render_template(template)
        return template

    def _check(self, settings: HttpSettings) -> None:
        check_login(self._key, settings.username, settings.password)
        names = {header.lower() for header in settings.headers}
        if settings.username and "authorization" in names:
            raise ConfigError(
                "expected either username or an Authorization header", key=f"{self._key}.username"
            )
        if settings.form is not None and settings.json is not None:
            raise ConfigError("expected either form or json, not both", key=f"{self._key}.json")
        for header in settings.headers:
            key = f"{self._key}.headers.{header}"
            if not _TOKEN.fullmatch(header):
                raise ConfigError("expected a header name (RFC 9110, 5.6.2)", key=key)
            if header.lower() in _FRAMING:
                raise ConfigError("Notifier sets this header; remove it", key=key)
            if _CONTROL.search(self._fixed.get(f"headers.{header}", "")):
                raise ConfigError("expected a value without line breaks", key=key)
        if "json" in self._fixed and not _is_json(self._fixed["json"]):
            raise ConfigError("expected JSON: the text has no templates", key=f"{self._key}.json")

    def _check_names(self, template: str) -> None:
        """Raises ConfigError for a name that no notification has: all of them would be refused."""
        used = self._engine.undeclared_variables_in_template(template, nested=True)
        for name in sorted(used):
            first, _, rest = name.partition(".")
            known = _CONTENT if first == "content" and rest else _VARIABLES
            if (rest.partition(".")[0] if known is _CONTENT else first) not in known | _FUNCTIONS:
                raise ConfigError(
                    f"unknown name {name}, known: {', '.join(sorted(known))}",
                    key=f"{self._key}.{template}",
                )

    def _check_fixed_url(self) -> str:
        """The URL, if it is no template. Raises ConfigError if it cannot be requested."""
        if "url" not in self._fixed:
            return ""
        try:
            return _checked_url(self._fixed["url"])
        except (Unrenderable, ValueError) as error:
            raise ConfigError(str(error), key=f"{self._key}.url") from error


def _checked_url(text: str) -> str:
    """The URL in ASCII. Raises Unrenderable or ValueError if it cannot be requested."""
    url = URL(text)
    if url.scheme not in ("http", "https") or not url.host:
        raise Unrenderable("url: expected http:// or https:// and a host")
    return str(url)


def _basic_auth(settings: HttpSettings) -> str:
    """The Authorization header of `username` and `password` in UTF-8 (RFC 7617)."""
    if not settings.username:
        return ""
    login = f"{settings.username}:{settings.password}".encode()
    return f"Basic {base64.b64encode(login).decode()}"


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeError):
        return False
    return True


def _tojson(value: object) -> str:
    """Encode as JSON. The engine's own filter would write `null` for an undefined name."""
    return msgspec.json.encode(_defined(value)).decode()


def _urlencode(value: object) -> str:
    """Percent-encode everything but letters, digits and `_.-~`, for use in paths and queries."""
    return quote(str(_defined(value)), safe="")


def _defined(value: object) -> object:
    """The value, unless it is None, which a filter gets for undefined names even in strict mode."""
    if value is None:
        raise ValueError("undefined or none: use the default filter")
    return value


def _message(error: Exception) -> str:
    if isinstance(error, TemplateError):
        return f"{error.name or ''}: {error.detail or error.message}"
    return str(error)

"""An Envelope as one HTTP request, made from the templates of the settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

import msgspec
from minijinja import Environment, TemplateError
from yarl import URL

from notifier.adapters.providers.settings import HttpSettings
from notifier.domain.errors import ConfigError
from notifier.ports.provider import Envelope

_FUEL: Final = 100_000
_FORM: Final = "application/x-www-form-urlencoded"
_JSON: Final = "application/json"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 5.6.2


class Unrenderable(Exception):
    """The templates and this notification do not make a request."""


@dataclass(frozen=True, slots=True)
class Request:
    """What goes out. `body` is None when neither `form` nor `json` is set."""

    url: URL
    headers: Mapping[str, str]
    body: bytes | None


class Templates:
    """The compiled templates of one provider.

    Strict: a name that is not there is an error unless the template gives a default. Bounded: a
    template that loops without end runs out of fuel.
    """

    def __init__(self, name: str, settings: HttpSettings) -> None:
        """Raises ConfigError naming the setting whose template does not compile."""
        self._key = f"providers.{name}"
        self._engine = Environment(
            undefined_behavior="strict", fuel=_FUEL, auto_escape_callback=lambda _: False
        )
        self._engine.add_filter("tojson", _tojson)
        self._engine.add_filter("urlencode", _urlencode)
        self._headers = self._add_all("headers", settings.headers)
        self._form = None if settings.form is None else self._add_all("form", settings.form)
        self._add("url", settings.url)
        self._has_json = settings.json is not None
        if settings.json is not None:
            self._add("json", settings.json)
        self._check(settings)

    def render(self, envelope: Envelope) -> Request:
        """The request for one notification. Raises Unrenderable."""
        known: dict[str, object] = {
            "recipient": envelope.recipient,
            "id": str(envelope.id),
            "claim": envelope.claim,
            "channel": str(envelope.queue.channel),
            "priority": str(envelope.queue.priority),
            "content": envelope.content,
        }
        try:
            return Request(self._url(known), self._all_headers(known, envelope), self._body(known))
        except (TemplateError, ValueError, TypeError) as error:  # ValueError: Unicode, URL, JSON
            raise Unrenderable(_said(error)) from error

    def _url(self, known: Mapping[str, object]) -> URL:
        url = URL(self._engine.render_template("url", **known))
        if url.scheme not in ("http", "https") or not url.host:
            raise Unrenderable("url: expected http:// or https:// and a host")
        return url

    def _all_headers(self, known: Mapping[str, object], envelope: Envelope) -> dict[str, str]:
        headers = {"Idempotency-Key": str(envelope.id), "Notifier-Claim": str(envelope.claim)}
        if self._form is not None or self._has_json:
            headers["Content-Type"] = _JSON if self._has_json else _FORM
        for header, template in self._headers.items():
            value = self._engine.render_template(template, **known)
            if _CONTROL.search(value):
                raise Unrenderable(f"headers.{header}: a header takes no line breaks")
            for taken in [name for name in headers if name.lower() == header.lower()]:
                del headers[taken]
            headers[header] = value
        return headers

    def _body(self, known: Mapping[str, object]) -> bytes | None:
        if self._form is not None:
            rendered = {
                field: self._engine.render_template(template, **known)
                for field, template in self._form.items()
            }
            return urlencode(rendered).encode()
        if self._has_json:
            body = self._engine.render_template("json", **known).encode()
            msgspec.json.decode(body, type=msgspec.Raw)
            return body
        return None

    def _add_all(self, kind: str, templates: Mapping[str, str]) -> dict[str, str]:
        return {name: self._add(f"{kind}.{name}", source) for name, source in templates.items()}

    def _add(self, template: str, source: str) -> str:
        try:
            self._engine.add_template(template, source)
        except TemplateError as error:
            raise ConfigError(
                f"not a template: {_said(error)}", key=f"{self._key}.{template}"
            ) from error
        return template

    def _check(self, settings: HttpSettings) -> None:
        names = {header.lower() for header in settings.headers}
        if settings.username and "authorization" in names:
            raise ConfigError(
                "expected either username or an Authorization header", key=f"{self._key}.username"
            )
        if settings.form is not None and settings.json is not None:
            raise ConfigError("expected either form or json, not both", key=f"{self._key}.json")
        for header in settings.headers:
            if not _TOKEN.fullmatch(header):
                raise ConfigError("not the name of a header", key=f"{self._key}.headers.{header}")


def _tojson(value: object) -> str:
    """The engine's own would write `null` for a name that is not there."""
    return msgspec.json.encode(_there(value)).decode()


def _urlencode(value: object) -> str:
    """Everything but letters, digits and `_.-~`: safe in a path and in a query alike."""
    return quote(str(_there(value)), safe="")


def _there(value: object) -> object:
    """A filter gets None for what is undefined, also where undefined is an error."""
    if value is None:
        raise ValueError("undefined, or none: give a default")
    return value


def _said(error: Exception) -> str:
    if isinstance(error, TemplateError):
        return f"{error.name or ''}: {error.detail or error.message}"
    return str(error)

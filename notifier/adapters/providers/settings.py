"""What a provider needs to know. Secrets are plain strings here, already read from their files."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from notifier.adapters.providers.verdict import VerdictName

Count = Annotated[int, Meta(ge=1, le=100_000)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Host = Annotated[str, Meta(min_length=1, max_length=255, description="a host name or address")]
Seconds = Annotated[float, Meta(gt=0, le=3600)]
Template = Annotated[str, Meta(max_length=65_536)]
Status = Annotated[str, Meta(pattern=r"^[1-5][0-9]{2}$", description="an HTTP status like 404")]

_SECRET: Final = frozenset({"username", "password", "headers", "url"})  # a URL may hold a key


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the settings; its repr never shows a secret.

    `rate` is how many calls a second the provider allows, all workers together.
    """

    rate: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None

    def __repr__(self) -> str:
        """The fields that may be seen."""
        shown = (name for name in self.__struct_fields__ if name not in _SECRET)
        values = (f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__name__}({', '.join(values)})"


class SmtpSettings(_Table, frozen=True, kw_only=True, tag_field="type", tag="smtp"):
    """`[providers.<name>]` with `type = "smtp"`.

    `sender` is the From address, with or without a display name. `envelope_sender` (where bounces
    go) and `domain` (of the Message-ID) come from it when empty. `timeout_s` bounds one whole
    send, the wait for a connection counted; keep it below the worker's `send_timeout_s`.
    """

    host: Host
    port: Port = 25
    security: Literal["none", "starttls", "tls"] = "none"
    ca_file: str = ""
    username: str = ""
    password: str = ""
    sender: Annotated[str, Meta(min_length=3, max_length=320)] = "Notifier <notifier@example.com>"
    envelope_sender: str = ""
    domain: str = ""
    ehlo_name: str = ""
    max_connections: Count = 32
    idle_s: Seconds = 30.0
    timeout_s: Seconds = 15.0


class HttpSettings(_Table, frozen=True, kw_only=True, tag_field="type", tag="http"):
    """`[providers.<name>]` with `type = "http"`: one request a send, made from templates.

    `url`, `headers`, `form` and `json` are minijinja templates over `recipient`, `id`, `claim`,
    `channel`, `priority` and `content`. At most one of `form` (urlencoded) and `json` is given.
    `reference` and `error_code` are dotted paths into the answer's JSON; of several error codes
    the first found counts. `statuses` and `errors` override the table of verdicts by HTTP status
    and by error code. `timeout_s` bounds one whole send; keep it below `send_timeout_s`.
    """

    url: Annotated[str, Meta(min_length=1, max_length=8192)]
    method: Literal["POST", "PUT", "PATCH", "GET"] = "POST"
    headers: Mapping[str, Template] = {}
    form: Mapping[str, Template] | None = None
    json: Template | None = None
    username: str = ""
    password: str = ""
    reference: str = ""
    error_code: tuple[str, ...] = ()
    statuses: Mapping[Status, VerdictName] = {}
    errors: Mapping[str, VerdictName] = {}
    max_connections: Count = 100
    idle_s: Seconds = 15.0
    connect_timeout_s: Seconds = 5.0
    timeout_s: Seconds = 15.0
    retry_after_max_s: Annotated[float, Meta(gt=0, le=7 * 86_400)] = 3600.0

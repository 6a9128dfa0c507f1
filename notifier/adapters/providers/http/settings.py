"""The settings of an HTTP provider."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from notifier.adapters.providers.settings import Count, Seconds, SignedReceiptSettings
from notifier.adapters.providers.verdict import VerdictName

Template = Annotated[str, Meta(max_length=65_536)]
AnswerKey = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=512,
        description="a status (404), statuses (4xx, 500-599), an error code, path=value, "
        "/expression/ or *",
    ),
]
Value = str | int | float | bool


class SuccessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[providers.<name>.success]`: what the body of an accepting 2xx response looks like.

    Either `path`, at which every value must be one of `values`, or `text`, a regular expression
    that the body must match. Other bodies have the outcome `otherwise`, unless `answers` names
    their code.
    """

    path: str = ""
    values: tuple[Value, ...] = ()
    text: str = ""
    otherwise: VerdictName = "refused"


class HttpSettings(SignedReceiptSettings, frozen=True, kw_only=True, tag_field="type", tag="http"):
    """`[providers.<name>]` with `type = "http"`: one request per send, made from templates.

    `url`, `headers`, `form` and `json` are minijinja templates over `recipient`, `id`, `claim`,
    `channel`, `priority` and `content`. Only one of `form` (urlencoded) and `json` may be given.
    `reference` and `error_code` are dotted paths into the JSON of the response, in which `*` stands
    for every entry; of several error codes the first one found counts. `answers` overrides the
    built-in outcomes, `success` says which 2xx responses accept. `timeout_s` bounds one whole send;
    it must be below the worker's `send_timeout_s`.
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
    answers: Mapping[AnswerKey, VerdictName] = {}
    success: SuccessSettings | None = None
    max_connections: Count = 100
    idle_s: Seconds = 4.0
    connect_timeout_s: Seconds = 5.0
    retry_after_max_s: Annotated[float, Meta(gt=0, le=7 * 86_400)] = 3600.0
    http_version: Literal["1.1", "2"] = "1.1"
    proxy: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    key_password: str = ""

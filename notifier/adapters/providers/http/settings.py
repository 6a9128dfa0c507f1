"""The settings of an HTTP provider."""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta

from notifier.adapters.providers.settings import Count, ProviderSettings, Seconds
from notifier.adapters.providers.verdict import VerdictName

Template = Annotated[str, Meta(max_length=65_536)]
HttpStatus = Annotated[str, Meta(pattern=r"^[1-5][0-9]{2}$", description="an HTTP status like 404")]


class HttpSettings(ProviderSettings, frozen=True, kw_only=True, tag_field="type", tag="http"):
    """`[providers.<name>]` with `type = "http"`: one request per send, made from templates.

    `url`, `headers`, `form` and `json` are minijinja templates over `recipient`, `id`, `claim`,
    `channel`, `priority` and `content`. Only one of `form` (urlencoded) and `json` may be given.
    `reference` and `error_code` are dotted paths into the JSON of the response; of several error
    codes the first one found counts. `statuses` and `errors` override the verdicts by HTTP status
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
    statuses: Mapping[HttpStatus, VerdictName] = {}
    errors: Mapping[str, VerdictName] = {}
    max_connections: Count = 100
    idle_s: Seconds = 15.0
    connect_timeout_s: Seconds = 5.0
    timeout_s: Seconds = 15.0
    retry_after_max_s: Annotated[float, Meta(gt=0, le=7 * 86_400)] = 3600.0

"""Documents of templates. The command line decodes them, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from msgspec import Meta

from notifier.api.requests import (
    Instant,
    JsonObject,
    NullableObject,
    OptionalObject,
    TenantName,
    Text,
)
from notifier.domain.templates import LOCALE, MAX_LOCALES, TEMPLATE_NAME
from notifier.ports.templates import TemplateSummary

TemplateName = Annotated[str, Meta(extra_json_schema={"pattern": f"^{TEMPLATE_NAME}$"})]
Source = Annotated[Text, Meta(description="A Jinja template.")]


class ChannelParts(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The texts of one channel in one locale, each a Jinja template.

    An email needs a subject, and a body, html or mjml; a text message a body; a push a subject, a
    body or data. In data, every string is a template.
    """

    subject: Source | None = None
    body: Source | None = None
    html: Source | None = None
    mjml: Annotated[Text | None, Meta(description="MJML, in place of html.")] = None
    data: OptionalObject = msgspec.field(default_factory=msgspec.Raw)


class TemplateParts(msgspec.Struct, forbid_unknown_fields=True):
    """What a version of a template consists of."""

    default_locale: Annotated[
        str, Meta(description="One of the locales: for recipients whose own is not there.")
    ]
    locales: Annotated[
        dict[str, dict[str, ChannelParts]],
        Meta(description="By language tag (BCP 47), then by the name of a channel."),
    ]
    schema: Annotated[
        OptionalObject,
        Meta(description="A JSON Schema (2020-12) that the variables of a submit must fit."),
    ] = msgspec.field(default_factory=msgspec.Raw)
    tenant: Annotated[
        TenantName | None, Meta(description="Whose template it is, with a deployment key.")
    ] = None


class Template(msgspec.Struct):
    """The newest version of a template, or the one that was saved.

    `versions` are the numbers of all versions, the newest first, at most 1,000.
    """

    name: str
    version: int
    channels: Sequence[str]
    created_at: Instant
    actor: str
    versions: Sequence[int] | msgspec.UnsetType = msgspec.UNSET

    @classmethod
    def of(cls, summary: TemplateSummary) -> Template:
        """Builds the document of a version."""
        return cls(
            name=summary.name,
            version=summary.version,
            channels=summary.channels,
            created_at=summary.created_at,
            actor=summary.actor,
            versions=summary.versions or msgspec.UNSET,
        )


class TemplatePage(msgspec.Struct):
    """The newest version of each template, by name. `next_cursor` is null on the last page."""

    items: Sequence[Template]
    next_cursor: str | None = None


class StoredParts(msgspec.Struct):
    """A version as it was submitted: `default_locale`, `locales`, and `schema` if it has one."""

    default_locale: str
    locales: JsonObject
    schema: JsonObject | msgspec.UnsetType = msgspec.UNSET


class Preview(msgspec.Struct):
    """What a submit would send. Nothing was stored.

    `size_bytes` is the length of the texts. `segments` and `encoding` (gsm7 or ucs2) are of a text
    message. `suppressed_by` is the suppression because of which nothing would be sent, and
    `quiet_until_at` the end of the quiet hours that would put it off.
    """

    channel: str
    recipient: str
    template: str | None
    locale: str | None
    from_: str | None = msgspec.field(name="from")
    subject: str | None
    body: str | None
    html: str | None
    data: NullableObject
    headers: dict[str, str] | None
    size_bytes: int
    segments: int | None
    encoding: str | None
    suppressed_by: UUID | None
    quiet_until_at: Instant | None


LOCALES_SCHEMA: Final[dict[str, Any]] = {
    "minProperties": 1,
    "maxProperties": MAX_LOCALES,
    "propertyNames": {"pattern": f"^{LOCALE}$"},
}
"""What the schema of `locales` has beside the types."""

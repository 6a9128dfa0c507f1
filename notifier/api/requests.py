"""Request bodies as msgspec decodes them.

The OpenAPI document is generated from these structs, so the documented limits are the enforced
ones.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from notifier.domain.fallbacks import MIN_AFTER_S
from notifier.domain.mail_files import MAX_FILENAME_LENGTH, MAX_FILES
from notifier.domain.mail_headers import MAX_HEADERS
from notifier.domain.notification import Priority, Unless
from notifier.domain.operations import OperationKind
from notifier.domain.suppressions import TOPIC
from notifier.domain.templates import (
    LOCALE,
    LOCALE_EXPECTED,
    MAX_SUBJECT_LENGTH,
    MAX_VARIABLES_BYTES,
    TEMPLATE_NAME,
)
from notifier.domain.tenants import TENANT_NAME

MAX_COPIES: Final = 20
MAX_REPLY_TO: Final = 20
MAX_COLLAPSE_KEY_LENGTH: Final = 64
MAX_KEY_LENGTH: Final = 255
MAX_TAG_LENGTH: Final = 64
TAG: Final = "^[A-Za-z0-9._:/-]+$"
PRINTABLE_ASCII: Final = "^[ -~]+$"
MAX_PAUSE_S: Final = 30 * 86_400.0
MAX_OPERATION_IDS: Final = 1_000
MIN_OPERATION_RATE: Final = 0.01
MAX_OPERATION_RATE: Final = 10_000.0
DEFAULT_RETRY_RATE: Final = 10.0
WHOLE_BODY: Final = "$"
"""The `field` of a problem that concerns the whole body."""
NO_NUL: Final = r"^[^\u0000]*$"
JSON_MEMBERS: Final = {
    "propertyNames": {"pattern": NO_NUL},
    "patternProperties": {NO_NUL: {"$ref": "#/components/schemas/JsonValue"}},
}
"""Beside `additionalProperties`, for generators of clients that read only that."""
JsonObject = Annotated[
    msgspec.Raw, Meta(extra_json_schema={"type": "object", "additionalProperties": True})
]
EncodedObject = Annotated[
    msgspec.Raw,
    Meta(extra_json_schema={"type": ["object", "null"], "additionalProperties": True}),
]
"""An encoded JSON object of an answer, or an encoded null."""
OptionalObject = Annotated[
    msgspec.Raw,
    Meta(
        extra_json_schema={
            "type": ["object", "null"],
            "additionalProperties": True,
            **JSON_MEMBERS,
        }
    ),
]
"""An empty Raw means absent and a Raw of `null` means null: msgspec has no `Raw | None`."""
NO_CONTROL_CHARACTERS: Final = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"
Text = Annotated[str, Meta(extra_json_schema={"pattern": NO_NUL})]
"""The patterns are only documented: the decoder would report them as regular expressions."""
TenantName = Annotated[str, Meta(extra_json_schema={"pattern": f"^{TENANT_NAME}$"})]
TopicName = Annotated[str, Meta(extra_json_schema={"pattern": f"^{TOPIC}$"})]
Note = Annotated[str, Meta(max_length=300, extra_json_schema={"pattern": NO_CONTROL_CHARACTERS})]
NullableObject = Annotated[
    object, Meta(extra_json_schema={"type": ["object", "null"], "additionalProperties": True})
]
"""A JSON object of an answer, or null."""
Mailboxes = Annotated[
    str | list[str] | None,
    Meta(
        description=(
            "Email: addresses such as ada@example.com or Ada <ada@example.com>. "
            f"cc and bcc have at most {MAX_COPIES} together."
        )
    ),
]
TimeOfDay = Annotated[
    str, Meta(examples=["21:00"], extra_json_schema={"pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"})
]
Instant = Annotated[datetime, Meta(tz=True, description="RFC 3339, with an offset.")]


class AttachmentDocument(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A file of an email, as `data` or as a `blob`; in a batch as a `blob`.

    One with a `content_id` is shown where the HTML says `cid:` and this.
    """

    filename: Annotated[str, Meta(min_length=1, max_length=MAX_FILENAME_LENGTH)]
    content_type: Annotated[str, Meta(examples=["application/pdf"])]
    data: Annotated[str | None, Meta(description="The file in base64 (RFC 4648, section 4).")] = (
        None
    )
    blob: Annotated[
        str | None, Meta(description="The id of the file, as `POST /v1/blobs` returned it.")
    ] = None
    content_id: str | None = None


class Content(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The message that the recipient sees.

    An email needs a subject; a text message a body; a push a subject, body or data; an entry of an
    inbox a body.
    """

    subject: (
        Annotated[
            str,
            Meta(
                max_length=MAX_SUBJECT_LENGTH,
                description="One line, without control characters.",
                extra_json_schema={"pattern": NO_CONTROL_CHARACTERS},
            ),
        ]
        | None
    ) = None
    body: Text | None = None
    html: Text | None = None
    data: OptionalObject = msgspec.field(default_factory=msgspec.Raw)
    from_: Annotated[
        str | None,
        Meta(description="The sender: a mailbox on email, a number or a name on phone channels."),
    ] = msgspec.field(name="from", default=None)
    reply_to: Mailboxes = None
    cc: Mailboxes = None
    bcc: Mailboxes = None
    headers: Annotated[
        dict[str, str] | None,
        Meta(
            description=(
                f"Email, at most {MAX_HEADERS}: X-*, In-Reply-To, References, Auto-Submitted, "
                "List-Id, and those that the settings allow."
            )
        ),
    ] = None
    attachments: Annotated[
        list[AttachmentDocument] | None,
        Meta(description=f"Email, at most {MAX_FILES}."),
    ] = None
    mime: Annotated[
        str | None,
        Meta(
            description=(
                "Email: the id of a blob that was uploaded as message/rfc822. It is sent as it is, "
                "and only `from`, the sender of the envelope, may stand beside it."
            )
        ),
    ] = None


class Fallback(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One more notification, if this one is not sent, or not delivered, in time.

    It has a content or a template. All that is not said here is as in this one.
    """

    after_s: Annotated[
        float,
        Meta(
            ge=MIN_AFTER_S,
            description=(
                "Seconds from send_at, or from acceptance, until it is submitted. If this one "
                "fails before, at once."
            ),
        ),
    ]
    channel: str
    recipient: Annotated[str, Meta(min_length=1, max_length=4096)]
    content: Annotated[Content | None, Meta(description="Its files are blobs.")] = None
    template: Annotated[
        Annotated[
            str, Meta(extra_json_schema={"pattern": f"^{TEMPLATE_NAME}(@[1-9][0-9]{{0,8}})?$"})
        ]
        | None,
        Meta(description="Its newest version is taken at the submit of this one."),
    ] = None
    variables: Annotated[
        OptionalObject, Meta(description="If absent, with a template, those of this one.")
    ] = msgspec.field(default_factory=msgspec.Raw)
    locale: Annotated[
        Annotated[str, Meta(extra_json_schema={"pattern": f"^{LOCALE}$"})] | None,
        Meta(description="If absent, with a template, that of this one."),
    ] = None
    unless: Annotated[
        Unless,
        Meta(
            description=(
                "What makes it needless: that this one is `sent`, or that a receipt says it was "
                "`delivered`, for channels whose provider sends receipts."
            )
        ),
    ] = Unless.SENT


class Submit(msgspec.Struct, forbid_unknown_fields=True):
    """One notification to one recipient."""

    channel: str
    recipient: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description=(
                "An email address, also with a name as in Ada <ada@example.com>, an E.164 phone "
                "number or a token, depending on the channel."
            ),
        ),
    ]
    content: Annotated[
        Content | None,
        Meta(
            description=(
                "What the recipient sees. With a template only from, reply_to, cc, bcc, headers "
                "and attachments."
            )
        ),
    ] = None
    priority: Annotated[Priority, Meta(description="If absent, medium.")] = Priority.MEDIUM
    ttl_s: Annotated[
        Annotated[float, Meta(ge=0.001)] | None,
        Meta(
            description=(
                "Seconds from send_at, or from acceptance, until the notification expires. "
                "Absent: by priority."
            )
        ),
    ] = None
    expires_at: Annotated[
        Instant | None,
        Meta(description="In place of ttl_s: when it expires, after send_at. In the past: now."),
    ] = None
    send_at: Annotated[
        Instant | None,
        Meta(description="Not before this instant. In the past: now."),
    ] = None
    time_zone: Annotated[
        Annotated[str, Meta(max_length=64, examples=["Europe/Berlin"])] | None,
        Meta(
            description=(
                "The recipient's IANA time zone, by which quiet hours count. Absent: that of the "
                "tenant's quiet hours."
            )
        ),
    ] = None
    collapse_key: Annotated[
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_COLLAPSE_KEY_LENGTH,
                extra_json_schema={"pattern": PRINTABLE_ASCII},
            ),
        ]
        | None,
        Meta(
            description=(
                "It replaces an earlier notification to the same recipient on the same channel "
                "with the same key, if that still waits."
            )
        ),
    ] = None
    max_tries: Annotated[float, Meta(ge=1, le=100)] | None = None
    tag: Annotated[
        Annotated[
            str,
            Meta(min_length=1, max_length=MAX_TAG_LENGTH, extra_json_schema={"pattern": TAG}),
        ]
        | None,
        Meta(description="Your label of a campaign or a batch, to find its notifications by."),
    ] = None
    topic: Annotated[
        TopicName | None,
        Meta(
            description=(
                "What the recipient can unsubscribe from, such as newsletter. Absent: "
                "transactional. Emails with a topic need api.public_url in the settings."
            )
        ),
    ] = None
    metadata: OptionalObject = msgspec.field(default_factory=msgspec.Raw)
    idempotency_key: Annotated[
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_KEY_LENGTH,
                extra_json_schema={"pattern": PRINTABLE_ASCII},
            ),
        ]
        | None,
        Meta(description="The same as the header Idempotency-Key."),
    ] = None
    tenant: Annotated[
        TenantName | None,
        Meta(description="Whose it is. Only a deployment key names it. Absent: default."),
    ] = None
    template: Annotated[
        Annotated[
            str, Meta(extra_json_schema={"pattern": f"^{TEMPLATE_NAME}(@[1-9][0-9]{{0,8}})?$"})
        ]
        | None,
        Meta(
            description=(
                "In place of subject, body, html and data: the name of a template, whose newest "
                "version is taken at the submit, or name@version."
            )
        ),
    ] = None
    variables: Annotated[
        OptionalObject,
        Meta(
            description=(
                f"What the template is rendered with, at most {MAX_VARIABLES_BYTES:,} bytes."
            )
        ),
    ] = msgspec.field(default_factory=msgspec.Raw)
    locale: Annotated[
        Annotated[str, Meta(extra_json_schema={"pattern": f"^{LOCALE}$"})] | None,
        Meta(
            description=(
                f"Of the recipient: {LOCALE_EXPECTED}. If the template has no text for it, that of "
                "the language, or else of the template's default."
            )
        ),
    ] = None
    fallback: Annotated[
        Fallback | None,
        Meta(description="What is submitted if this one is not sent, once. Absent: nothing."),
    ] = None


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """Notifications that are validated and stored one by one."""

    notifications: msgspec.Raw


class PauseRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The duration of a pause and a note. Every field, and the body itself, is optional."""

    for_s: Annotated[
        Annotated[float, Meta(gt=0, le=MAX_PAUSE_S)] | None,
        Meta(description="Seconds. Absent: until the pause is deleted."),
    ] = None
    note: Annotated[
        Note | None,
        Meta(description="Why. One line, without control characters."),
    ] = None


class NoteRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A note on what a person does. The body itself is optional."""

    note: Annotated[
        Note | None,
        Meta(description="Why; it is kept in the audit. One line, without control characters."),
    ] = None


class OperationRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What to do with many notifications.

    `filter` has the names of the parameters of `GET /v1/notifications`, each with a text or an
    array of texts, or `ids` alone.
    """

    kind: OperationKind
    filter: Annotated[
        JsonObject,
        Meta(
            examples=[{"tag": "summer-sale", "status": ["queued", "retrying"]}],
            description=(
                "At least one of status, channel, priority, tag, recipient, reference, "
                "metadata.KEY, reason, provider, code, created_from, created_to, tenant and mode, "
                f"or ids: at most {MAX_OPERATION_IDS:,} ids. Without status a cancel concerns all "
                "that wait, and a retry those that failed. An erasure takes one recipient, and "
                "beside it only channel, tenant and mode."
            ),
        ),
    ]
    note: Annotated[Note, Meta(min_length=1, description="Why; it is kept in the audit. One line.")]
    rate_per_s: Annotated[
        Annotated[float, Meta(ge=MIN_OPERATION_RATE, le=MAX_OPERATION_RATE)] | None,
        Meta(
            description=(
                "The most notifications that are changed per second. Absent: "
                f"{DEFAULT_RETRY_RATE:g} for a retry, as many as possible for a cancel."
            )
        ),
    ] = None
    dry_run: Annotated[
        bool, Meta(description="Only count what would be found; nothing is stored.")
    ] = False


class QuietHoursRequest(msgspec.Struct, forbid_unknown_fields=True):
    """It is quiet while the clock on the wall shows `start` or later and is before `end`."""

    start: TimeOfDay
    end: Annotated[TimeOfDay, Meta(description="If it is before `start`, on the next day.")]
    time_zone: Annotated[
        str,
        Meta(
            max_length=64,
            examples=["Europe/Berlin"],
            description="An IANA time zone: of notifications that name none.",
        ),
    ]

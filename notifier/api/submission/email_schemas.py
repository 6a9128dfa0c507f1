"""JSON schemas of what an email has beside its text, for the OpenAPI document.

They are narrower than what email_fields.py accepts, where a pattern cannot say it.
"""

from __future__ import annotations

from typing import Any, Final

from notifier.api.requests import MAX_COPIES, MAX_REPLY_TO
from notifier.api.rules import AddressKind
from notifier.api.submission.address_schemas import recipient_schema
from notifier.domain.blobs import BLOB_ID_PATTERN
from notifier.domain.mail_files import MAX_FILES
from notifier.domain.mail_headers import MAX_HEADERS

_NULL: Final = {"type": "null"}
_ONLY_EMAIL: Final = ("reply_to", "cc", "bcc", "headers", "attachments", "mime")
_BLOB: Final = {"type": "string", "pattern": BLOB_ID_PATTERN}
_SMS_SENDER: Final = r"^(\+[1-9][0-9]{1,14}|[0-9]{3,8}|[A-Za-z][A-Za-z0-9]{0,10})$"
_MESSAGE_IDS: Final = "^<[a-z0-9.@-]{1,250}>( <[a-z0-9.@-]{1,250}>){0,2}$"
_HEADERS: Final = {
    "type": "object",
    "maxProperties": MAX_HEADERS,
    "propertyNames": {
        "pattern": (
            "^(X-[A-MO-Z][a-z0-9]{0,30}(-[A-Z][a-z0-9]{0,30})?|"
            "In-Reply-To|References|Auto-Submitted|List-Id)$"
        )
    },
    "properties": {
        "In-Reply-To": {"type": "string", "pattern": _MESSAGE_IDS},
        "References": {"type": "string", "pattern": _MESSAGE_IDS},
        "Auto-Submitted": {
            "type": "string",
            "enum": ["no", "auto-generated", "auto-replied", "auto-notified"],
        },
        "List-Id": {
            "type": "string",
            "pattern": "^([A-Za-z0-9._-]{1,200} )?<[A-Za-z0-9._-]{1,253}>$",
        },
    },
    "additionalProperties": {"type": "string", "pattern": "^[!-~]{1,900}$"},
}
_DATA: Final = {
    "type": "string",
    "pattern": "^([A-Za-z0-9+/]{4})*$",
    "contentEncoding": "base64",
}
_FILE: Final = {
    "properties": {
        "filename": {"pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$"},
        "content_type": {"pattern": "^(application|audio|font|image|text|video)/[a-z0-9]{1,63}$"},
        "content_id": {"anyOf": [_NULL, {"pattern": "^[A-Za-z0-9._@+-]{1,200}$"}]},
    },
    "anyOf": [
        {"properties": {"data": _DATA, "blob": _NULL}, "required": ["data"]},
        {"properties": {"blob": _BLOB, "data": _NULL}, "required": ["blob"]},
    ],
}
ONLY_MIME: Final = {
    "properties": {
        "mime": _BLOB,
        **dict.fromkeys(("subject", "body", "html", "data"), _NULL),
        **dict.fromkeys(("reply_to", "cc", "bcc", "headers", "attachments"), _NULL),
    },
    "required": ["mime"],
}
"""A content that is a whole mail."""


def head_schemas(kind: AddressKind) -> dict[str, Any]:
    """Returns the schemas of the sender, the other mailboxes, the headers and the files."""
    if kind is not AddressKind.EMAIL:
        sender = _nullable({"pattern": _SMS_SENDER}) if kind is AddressKind.PHONE else _NULL
        return {"from": sender, **dict.fromkeys(_ONLY_EMAIL, _NULL)}
    mailbox = {"type": "string", **recipient_schema(AddressKind.EMAIL)}
    return {
        "from": _nullable(mailbox),
        "reply_to": _mailboxes(mailbox, MAX_REPLY_TO),
        "cc": _mailboxes(mailbox, MAX_COPIES // 2),
        "bcc": _mailboxes(mailbox, MAX_COPIES // 2),
        "headers": _nullable(_HEADERS),
        "attachments": _nullable({"type": "array", "maxItems": MAX_FILES, "items": _FILE}),
        "mime": _nullable(_BLOB),
    }


def _mailboxes(mailbox: dict[str, Any], most: int) -> dict[str, Any]:
    return {"anyOf": [_NULL, mailbox, {"type": "array", "items": mailbox, "maxItems": most}]}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [_NULL, schema]}

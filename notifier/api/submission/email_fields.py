"""Checks what an email has beside its text: mailboxes, headers and files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

from notifier.api.requests import MAX_COPIES, MAX_REPLY_TO, AttachmentDocument, Content
from notifier.api.rules import AddressKind
from notifier.api.submission.addresses import checked_recipient
from notifier.domain.blobs import (
    ATTACHMENTS,
    MIME,
    BlobId,
    BlobUse,
    blob_id,
    checked_blob_id,
)
from notifier.domain.errors import InvalidNotification
from notifier.domain.mail_files import (
    CONTENT_ID_EXPECTED,
    DATA_EXPECTED,
    MAX_FILES,
    FileDocument,
    checked_content_id,
    checked_content_type,
    checked_filename,
    decoded_data,
)
from notifier.domain.mail_headers import (
    MAX_HEADERS,
    is_allowed_name,
    name_expected,
    wrong_value,
)
from notifier.domain.mailbox import NamedAddress
from notifier.domain.senders import Senders

RECIPIENT_NAME: Final = "recipient_name"
"""The key of the recipient's name in the stored content."""
_SMS_SENDER: Final = re.compile(r"\+[1-9][0-9]{1,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}")


_FILE_CHECKS: Final = {
    "filename": checked_filename,
    "content_type": checked_content_type,
    "content_id": checked_content_id,
}
_ONLY_EMAIL: Final = ("reply_to", "cc", "bcc", "headers", "attachments", "mime")


def checked_mailbox(text: str, field: str) -> NamedAddress:
    """Returns the mailbox with its address as it is sent. Raises InvalidNotification."""
    try:
        mailbox = NamedAddress.parse(text)
    except ValueError as error:
        raise InvalidNotification(field, str(error)) from error
    try:
        return NamedAddress(mailbox.name, checked_recipient(AddressKind.EMAIL, mailbox.address))
    except InvalidNotification as error:
        raise InvalidNotification(field, error.expected) from error


def checked_address(kind: AddressKind, recipient: str) -> NamedAddress:
    """Returns the recipient, of an email also with a name. Raises InvalidNotification."""
    if kind is AddressKind.EMAIL and "<" in recipient:
        return checked_mailbox(recipient, "recipient")
    return NamedAddress("", checked_recipient(kind, recipient))


class EmailParts(NamedTuple):
    """What a content has beside its text, as it is stored, and the blobs that it refers to."""

    parts: Mapping[str, object]
    blobs: Sequence[BlobUse] = ()


def is_text_sender(text: str) -> bool:
    """Whether a text message may come from this number or name."""
    return _SMS_SENDER.fullmatch(text) is not None


def sender_parts(
    kind: AddressKind,
    content: Content,
    allowed_headers: Collection[str],
    senders: Senders,
    *,
    may_inline: bool,
) -> EmailParts:
    """Returns the sender, the other mailboxes, the headers and the files.

    Without a sender it is the first of `senders` of this kind, if there is one.

    Raises InvalidNotification, also for those that this kind of channel does not have. Files must
    be blobs unless they `may_inline`.
    """
    if kind is AddressKind.EMAIL:
        return _email_parts(content, allowed_headers, senders, may_inline=may_inline)
    for name in _ONLY_EMAIL:
        if getattr(content, name) is not None:
            raise InvalidNotification(f"content.{name}", "null: only emails have it")
    if content.from_ is None:
        default = senders.text_sender if kind is AddressKind.PHONE else None
        return EmailParts({} if default is None else {"from": default})
    if kind is not AddressKind.PHONE:
        raise InvalidNotification("content.from", "null: only emails and text messages have it")
    if not is_text_sender(content.from_):
        expected = "a number such as +15005550006 or 12345, or a name of 1 to 11 letters and digits"
        raise InvalidNotification("content.from", expected)
    if not senders.allows_text_sender(content.from_):
        raise InvalidNotification("content.from", senders.expected)
    return EmailParts({"from": content.from_})


def _email_parts(
    content: Content, allowed_headers: Collection[str], senders: Senders, *, may_inline: bool
) -> EmailParts:
    parts: dict[str, object] = {}
    if content.from_ is not None:
        mailbox = checked_mailbox(content.from_, "content.from")
        if not senders.allows_address(mailbox.address):
            raise InvalidNotification("content.from", senders.expected)
        parts["from"] = str(mailbox)
    elif senders.mailbox is not None and content.mime is None:
        parts["from"] = senders.mailbox
    if content.mime is not None:
        use = _blob_use(content.mime, f"content.{MIME}", is_mail=True)
        return EmailParts({**parts, MIME: use.id}, [use])
    if reply_to := _mailboxes(content.reply_to, "content.reply_to", MAX_REPLY_TO):
        parts["reply_to"] = reply_to
    cc = _mailboxes(content.cc, "content.cc", MAX_COPIES)
    bcc = _mailboxes(content.bcc, "content.bcc", MAX_COPIES)
    if len(cc) + len(bcc) > MAX_COPIES:
        field = "content.bcc" if bcc else "content.cc"
        raise InvalidNotification(field, f"at most {MAX_COPIES} addresses in cc and bcc together")
    parts |= {name: given for name, given in (("cc", cc), ("bcc", bcc)) if given}
    if content.headers:
        parts["headers"] = _headers(content.headers, allowed_headers)
    if not content.attachments:
        return EmailParts(parts)
    uses = _file_uses(content.attachments, may_inline=may_inline)
    parts[ATTACHMENTS] = [
        FileDocument(each.filename, each.content_type, use.id, each.content_id)
        for each, use in zip(content.attachments, uses, strict=True)
    ]
    return EmailParts(parts, uses)


def _file_uses(given: Sequence[AttachmentDocument], *, may_inline: bool) -> Sequence[BlobUse]:
    """Checks the files; returns the blob of each."""
    if len(given) > MAX_FILES:
        raise InvalidNotification("content.attachments", f"at most {MAX_FILES} files")
    for n, each in enumerate(given):
        for name, check in _FILE_CHECKS.items():
            value = getattr(each, name)
            try:
                if value is not None:
                    check(value)
            except ValueError as error:
                raise InvalidNotification(f"content.attachments.{n}.{name}", str(error)) from error
        if each.content_id == "" or each.content_id in [
            other.content_id for other in given[:n] if other.content_id
        ]:
            expected = f"{CONTENT_ID_EXPECTED}, each once"
            raise InvalidNotification(f"content.attachments.{n}.content_id", expected)
    return [
        _file_use(each, f"content.attachments.{n}", may_inline=may_inline)
        for n, each in enumerate(given)
    ]


def _file_use(each: AttachmentDocument, field: str, *, may_inline: bool) -> BlobUse:
    if each.blob is not None:
        if each.data is not None:
            raise InvalidNotification(f"{field}.blob", "null beside data: a file is one of both")
        return _blob_use(each.blob, f"{field}.blob")
    if each.data is None:
        expected = f"{DATA_EXPECTED}; or blob, the id of an uploaded file"
        raise InvalidNotification(f"{field}.data", expected)
    if not may_inline:
        expected = "null in a batch: upload the file to /v1/blobs and refer to it by blob"
        raise InvalidNotification(f"{field}.data", expected)
    try:
        data = decoded_data(each.data)
    except ValueError as error:
        raise InvalidNotification(f"{field}.data", str(error)) from error
    return BlobUse(blob_id(data), f"{field}.data", data)


def _blob_use(text: str, field: str, *, is_mail: bool = False) -> BlobUse:
    try:
        return BlobUse(BlobId(checked_blob_id(text)), field, is_mail=is_mail)
    except ValueError as error:
        raise InvalidNotification(field, str(error)) from error


def _mailboxes(given: str | Sequence[str] | None, field: str, most: int) -> Sequence[str]:
    if given is None:
        return []
    if isinstance(given, str):
        return [str(checked_mailbox(given, field))]
    if len(given) > most:
        raise InvalidNotification(field, f"at most {most} addresses")
    return [str(checked_mailbox(text, f"{field}.{n}")) for n, text in enumerate(given)]


def _headers(headers: Mapping[str, str], allowed: Collection[str]) -> Mapping[str, str]:
    if len(headers) > MAX_HEADERS:
        raise InvalidNotification("content.headers", f"at most {MAX_HEADERS} headers")
    for name, value in headers.items():
        if not is_allowed_name(name, allowed):
            raise InvalidNotification("content.headers", name_expected(allowed))
        if expected := wrong_value(name, value):
            raise InvalidNotification(f"content.headers.{name}", expected)
    if len({name.lower() for name in headers}) < len(headers):
        raise InvalidNotification("content.headers", "each name once, whatever its case")
    return headers

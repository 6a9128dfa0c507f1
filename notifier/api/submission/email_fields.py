"""Checks what an email has beside its text: mailboxes, headers and files."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from notifier.api.requests import MAX_COPIES, MAX_REPLY_TO, AttachmentDocument, Content
from notifier.api.rules import AddressKind
from notifier.api.submission.addresses import checked_recipient
from notifier.domain.errors import InvalidNotification
from notifier.domain.mail_files import (
    CONTENT_ID_EXPECTED,
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

RECIPIENT_NAME: Final = "recipient_name"
"""The key of the recipient's name in the stored content."""
_SMS_SENDER: Final = re.compile(r"\+[1-9][0-9]{1,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}")


_FILE_CHECKS: Final = {
    "filename": checked_filename,
    "content_type": checked_content_type,
    "content_id": checked_content_id,
    "data": decoded_data,
}


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


def sender_parts(
    kind: AddressKind, content: Content, allowed_headers: Collection[str]
) -> Mapping[str, object]:
    """Returns the sender, the other mailboxes and the headers as they are stored.

    Raises InvalidNotification, also for those that this kind of channel does not have.
    """
    if kind is AddressKind.EMAIL:
        return _email_parts(content, allowed_headers)
    only_email = {
        "reply_to": content.reply_to,
        "cc": content.cc,
        "bcc": content.bcc,
        "headers": content.headers,
        "attachments": content.attachments,
    }
    for name, value in only_email.items():
        if value is not None:
            raise InvalidNotification(f"content.{name}", "null: only emails have it")
    if content.from_ is None:
        return {}
    if kind is not AddressKind.PHONE:
        raise InvalidNotification("content.from", "null: only emails and text messages have it")
    if not _SMS_SENDER.fullmatch(content.from_):
        expected = "a number such as +15005550006 or 12345, or a name of 1 to 11 letters and digits"
        raise InvalidNotification("content.from", expected)
    return {"from": content.from_}


def _email_parts(content: Content, allowed_headers: Collection[str]) -> Mapping[str, object]:
    parts: dict[str, object] = {}
    if content.from_ is not None:
        parts["from"] = str(checked_mailbox(content.from_, "content.from"))
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
    if content.attachments:
        parts["attachments"] = _attachments(content.attachments)
    return parts


def _attachments(given: Sequence[AttachmentDocument]) -> Sequence[FileDocument]:
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
        FileDocument(each.filename, each.content_type, each.data, each.content_id) for each in given
    ]


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

"""The files of a notification as templates see them: in base64."""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Mapping

from notifier.domain.blobs import ATTACHMENTS, MIME
from notifier.ports.provider import Envelope


def content_with_files(envelope: Envelope) -> Mapping[str, object]:
    """Return the content, with the `data` of each file and with a whole mail, in base64.

    A file that is missing has no `data`, which a template then cannot be rendered with.
    """
    if not envelope.files:
        return envelope.content
    content = dict(envelope.content)
    files = content.get(ATTACHMENTS)
    if isinstance(files, list):
        content[ATTACHMENTS] = [_with_data(file, envelope.files) for file in files]
    mail = envelope.files.get(str(content.get(MIME)))
    if mail is not None:
        content[MIME] = _base64(mail)
    return content


def _with_data(file: object, files: Mapping[str, bytes]) -> object:
    if not isinstance(file, dict):
        return file
    data = files.get(str(file.get("blob")))
    return file if data is None else {**file, "data": _base64(data)}


def _base64(data: bytes) -> str:
    return str(b2a_base64(data, newline=False), "ascii")

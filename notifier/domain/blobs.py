"""Blobs: bytes that many notifications share, named by their SHA-256. Files of emails are blobs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Final, NamedTuple, NewType

BlobId = NewType("BlobId", str)
"""`sha256:` and the digest in lower-case hexadecimal digits."""
BLOB_ID_PATTERN: Final = "^sha256:[0-9a-f]{64}$"
BLOB_ID_EXPECTED: Final = "the id of a blob such as sha256:..., as POST /v1/blobs returned it"
REFERENCE_MARK: Final = b'"sha256:'
"""In every stored content that refers to a blob, and in few others."""
MIME: Final = "mime"
ATTACHMENTS: Final = "attachments"
_PREFIX: Final = "sha256:"
_ID: Final = re.compile(BLOB_ID_PATTERN.strip("^$"))


class StoredBlob(NamedTuple):
    """A blob in the store: its size in bytes, and whether it was checked to be a whole mail.

    `senders` are the addresses in From of a mail; none if they are not known.
    """

    size: int
    is_mail: bool = False
    senders: tuple[str, ...] = ()


class BlobUse(NamedTuple):
    """A blob that a submit needs: the `field` that names it, and its bytes if the submit has them.

    `is_mail`: the blob must be a whole mail.
    """

    id: BlobId
    field: str
    data: bytes | None = None
    is_mail: bool = False


def blob_id(data: bytes) -> BlobId:
    """Return the id of these bytes."""
    return BlobId(_PREFIX + sha256(data).hexdigest())


def checked_blob_id(text: str) -> str:
    """Return the id. Raises ValueError if it is none."""
    if not is_blob_id(text):
        raise ValueError(BLOB_ID_EXPECTED)
    return text


def digest_of(blob: BlobId) -> bytes:
    """Return the SHA-256 in an id."""
    return bytes.fromhex(blob.removeprefix(_PREFIX))


def id_of_digest(digest: bytes) -> BlobId:
    """Return the id with this SHA-256."""
    return BlobId(_PREFIX + digest.hex())


def blobs_of(content: Mapping[str, object]) -> frozenset[str]:
    """Return what a stored content names as its blobs. They need not be ids."""
    return frozenset(_references(content))


def _references(content: Mapping[str, object]) -> Iterator[str]:
    files = content.get(ATTACHMENTS)
    documents = files if isinstance(files, list) else []
    named = [file.get("blob") for file in documents if isinstance(file, dict)]
    yield from (blob for blob in [*named, content.get(MIME)] if isinstance(blob, str))


def is_blob_id(text: str) -> bool:
    """Whether this is the id of a blob."""
    return _ID.fullmatch(text) is not None

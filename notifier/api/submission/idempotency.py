"""The idempotency keys of a request: from its header, or from each submit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar.types import Scope

from notifier.api.requests import MAX_KEY_LENGTH, Submit
from notifier.domain.blobs import ATTACHMENTS, BlobUse
from notifier.domain.credentials import Mode
from notifier.domain.errors import InvalidNotification
from notifier.domain.idempotency import IdempotencyKey, digest, key_digest
from notifier.domain.tenants import TenantId

HEADER: Final = "Idempotency-Key"
KEY_EXPECTED: Final = f"1 to {MAX_KEY_LENGTH} printable ASCII characters"
_FIELD: Final = "idempotency_key"
_DEPLOYMENT: Final = "*"  # no tenant has this name
_NAME: Final = HEADER.lower().encode()
_ALLOWED: Final = re.compile(rf"[ -~]{{1,{MAX_KEY_LENGTH}}}")
_MAX_EXACT: Final = 2**53
"""Up to here every whole number is a double."""


class RequestKeys:
    """The keys of one request, in the scope of the notification's tenant and of the mode.

    The header's key K gives the item `number` of a batch the key `K#number`, unless it has one.
    """

    __slots__ = ("_header", "_mode")

    def __init__(self, header: str | None, mode: Mode = Mode.LIVE) -> None:
        self._header = header
        self._mode = mode

    def key_of(
        self,
        submit: Submit,
        body: bytes | msgspec.Raw,
        number: int | None,
        blobs: Sequence[BlobUse] = (),
        *,
        tenant: TenantId,
    ) -> IdempotencyKey | None:
        """Returns the key of a submit with this valid body and these blobs, None if it has none.

        `number` is its place in a batch, None for a single submit. Raises InvalidNotification if
        the field and the header of a single submit have different keys.
        """
        key = checked_key(submit)
        if self._header is not None:
            if number is not None:
                key = key or f"{self._header}#{number}"
            elif key not in {None, self._header}:
                raise InvalidNotification(_FIELD, f"the same key as in the header {HEADER}")
            else:
                key = self._header
        if key is None:
            return None
        return IdempotencyKey(
            digest=key_digest(tenant, self._mode, key),
            body=digest(canonical_json(bytes(body), blobs)),
        )


NO_KEYS: Final = RequestKeys(None)


def request_keys(scope: Scope, mode: Mode = Mode.LIVE) -> RequestKeys:
    """Returns the keys of a request in this mode. Raises InvalidNotification for a wrong header."""
    key = _header_key(scope)
    return NO_KEYS if key is None and mode is Mode.LIVE else RequestKeys(key, mode)


def operation_key(
    scope: Scope, tenant: TenantId | None, mode: Mode, body: bytes
) -> IdempotencyKey | None:
    """Returns the key of an operation with this body, None if the request has none.

    `tenant` None is the deployment, which shares its keys with no tenant. Raises
    InvalidNotification for a wrong header.
    """
    key = _header_key(scope)
    if key is None:
        return None
    owner = _DEPLOYMENT if tenant is None else tenant
    return IdempotencyKey(key_digest(owner, mode, key), digest(canonical_json(body)))


def _header_key(scope: Scope) -> str | None:
    headers = {value for name, value in scope["headers"] if name == _NAME}
    if not headers:
        return None
    key = headers.pop().decode("latin-1")
    if headers or not _ALLOWED.fullmatch(key):
        raise InvalidNotification(HEADER, f"one key of {KEY_EXPECTED}")
    return key


def checked_key(submit: Submit) -> str | None:
    """Returns the key in the field. Raises InvalidNotification if it is no key."""
    key = submit.idempotency_key
    if key is not None and not _ALLOWED.fullmatch(key):
        raise InvalidNotification(_FIELD, KEY_EXPECTED)
    return key


def canonical_json(body: bytes, blobs: Sequence[BlobUse] = ()) -> bytes:
    """Returns the same bytes for every spelling of a submit, whose key is left out.

    Members are sorted, white space and escapes that JSON does not need are left out, and 1.0 is 1.
    A file counts by its blob, also if its data is in the body: `blobs` are those of the files.
    """
    document = _DECODER.decode(body)
    document.pop(_FIELD, None)
    for use in blobs:
        if use.data is not None:
            _refer(document, use)
    return msgspec.json.encode(document, order="sorted")


def _refer(document: dict[str, Any], use: BlobUse) -> None:
    """Write a blob in place of the data of the file that it was made of."""
    _, _, number, _ = use.field.split(".")
    file = document["content"][ATTACHMENTS][int(number)]
    del file["data"]
    file["blob"] = use.id


def _number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) <= _MAX_EXACT else number


_DECODER: Final = msgspec.json.Decoder(dict[str, Any], float_hook=_number)

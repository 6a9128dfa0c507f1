"""JSON schemas of recipients, for the OpenAPI document."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from typing import Any, Final

import phonenumbers

from notifier.api.rules import AddressKind
from notifier.domain.inbox import MAX_USER_LENGTH

_ATOM_CHARACTER: Final = r"[^\s\"(),.:;<>@\[\\\]\u0000-\u001f\u007f]"
_ADDRESS: Final = (
    rf"{_ATOM_CHARACTER}+(\.{_ATOM_CHARACTER}+)*"
    rf"@({_ATOM_CHARACTER}+(\.{_ATOM_CHARACTER}+)+|localhost)"
)
_EMAIL: Final = f"^{_ADDRESS}$"
_LABEL: Final = "[a-z0-9]{1,20}(-[a-z0-9]{1,20})?"
_NAMED_EMAIL: Final = (
    r"^[A-Za-z0-9][A-Za-z0-9 .'-]{0,63} "
    rf"<[A-Za-z0-9]{{1,20}}([.+_-][A-Za-z0-9]{{1,20}})?@({_LABEL}\.){{1,3}}[a-z]{{2,20}}>$"
)
"""Narrower than what is accepted: `format` cannot exclude wrong domains here."""
USER_PATTERN: Final = rf"^[A-Za-z0-9_~@:/-][\u0021-\u007e]{{0,{MAX_USER_LENGTH - 1}}}$"
"""Narrower than what is accepted: other scripts have printable characters, too."""
_MAX_EMAIL_LENGTH: Final = 254
_MAX_PHONE_DIGITS: Final = 15
"""Of a number in E.164 form, with its country calling code."""


def recipient_schema(kind: AddressKind) -> dict[str, Any]:
    """Returns the schema of an address. What it allows is accepted by `checked_recipient`."""
    match kind:
        case AddressKind.EMAIL:
            plain = {"format": "idn-email", "maxLength": _MAX_EMAIL_LENGTH, "pattern": _EMAIL}
            named = {"maxLength": _MAX_EMAIL_LENGTH, "pattern": _NAMED_EMAIL}
            return {"anyOf": [plain, named]}
        case AddressKind.PHONE:
            return {"pattern": _phone_pattern()}
        case AddressKind.TOKEN:
            return {"pattern": r"^[\u0021-\u007e]{1,4096}$"}
        case AddressKind.USER:
            return {"pattern": USER_PATTERN}


@cache
def _phone_pattern() -> str:
    """Returns a pattern of the numbers that have a possible length for their calling code."""
    codes: defaultdict[str, list[str]] = defaultdict(list)
    for code, regions in phonenumbers.COUNTRY_CODE_TO_REGION_CODE.items():
        codes[_length_pattern(code, regions)].append(str(code))
    numbers = (f"({'|'.join(group)})({lengths})" for lengths, group in codes.items())
    return rf"^\+({'|'.join(numbers)})$"


def _length_pattern(code: int, regions: tuple[str, ...]) -> str:
    lengths: set[int] = set()
    for region in regions:
        metadata = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(code, region)
        if metadata and metadata.general_desc:
            lengths.update(metadata.general_desc.possible_length)
    longest = _MAX_PHONE_DIGITS - len(str(code))
    return "|".join(f"[0-9]{{{n}}}" for n in sorted(lengths) if 0 < n <= longest)

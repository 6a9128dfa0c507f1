"""Ids in paths and parameters, in their canonical form only."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

_CANONICAL: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def canonical_uuid(text: str) -> UUID | None:
    """Returns the id, None for any other text; `UUID` alone also takes braces and urn:uuid:."""
    return UUID(text) if _CANONICAL.fullmatch(text) else None

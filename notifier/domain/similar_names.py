"""Finds the name that somebody probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def most_similar(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is most similar, whatever its case; None if none is."""
    by_lower_case = {known_name.lower(): known_name for known_name in sorted(known)}
    similar = get_close_matches(name.lower(), by_lower_case, n=1, cutoff=0.6)
    return by_lower_case[similar[0]] if similar else None

"""MJML, compiled to HTML when a version is saved. Needs the extra `mjml`."""

from __future__ import annotations

import re
from typing import Final

from notifier.adapters.templating.engine import Faulty, column_after
from notifier.domain.templates import FaultKind, TemplateFault

_PART: Final = "mjml"
_PLACE: Final = re.compile(r" at position (\d+)")


def html_of(mjml: str) -> str:
    """Return the HTML. Raises Faulty if it is no MJML, or if the library is not installed."""
    try:
        from mjml import mjml2html  # noqa: PLC0415 an extra
    except ImportError as error:
        detail = "MJML needs an extra: pip install 'notifier-engine[mjml]'"
        raise Faulty(TemplateFault(kind=FaultKind.ERROR, part=_PART, detail=detail)) from error
    try:
        return str(mjml2html(mjml))
    except ValueError as error:
        raise Faulty(_fault(str(error), mjml)) from error


def _fault(message: str, mjml: str) -> TemplateFault:
    match = _PLACE.search(message)
    before = mjml.encode()[: int(match[1])].decode(errors="replace") if match else ""
    return TemplateFault(
        kind=FaultKind.SYNTAX,
        part=_PART,
        detail=_PLACE.sub("", message.partition(":")[0])[:200],
        line=before.count("\n") + 1 if match else 0,
        column=column_after(before) if match else 0,
    )

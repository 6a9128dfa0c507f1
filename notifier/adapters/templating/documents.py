"""Compiles a whole document of a template: every text of every channel in every locale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from notifier.adapters.templating import schemas
from notifier.adapters.templating.engine import Compiled, Faulty
from notifier.adapters.templating.mjml import html_of
from notifier.domain.templates import TemplateFault


def compiled(document: bytes) -> bytes:
    """Return the document with HTML in place of MJML. Raises Faulty with what is wrong."""
    decoded: dict[str, Any] = msgspec.json.decode(document)
    faults: list[TemplateFault] = []
    if decoded.get("schema") is not None:
        faults += schemas.faults_of(msgspec.json.encode(decoded["schema"]))
    for locale, channels in decoded["locales"].items():
        for channel, parts in channels.items():
            try:
                channels[channel] = _compiled(parts)
            except Faulty as error:
                path = f"locales.{locale}.{channel}"
                faults += [
                    msgspec.structs.replace(fault, part=f"{path}.{fault.part}")
                    for fault in error.faults
                ]
    if faults:
        raise Faulty(*faults[: schemas.MAX_FAULTS])
    return msgspec.json.encode(decoded)


def _compiled(parts: Mapping[str, Any]) -> Mapping[str, Any]:
    given = {name: part for name, part in parts.items() if part is not None}
    mjml = given.pop("mjml", None)
    if mjml is not None:
        given["html"] = html_of(mjml)
    Compiled(given)
    return given

"""Checks the document of a template as far as that needs no renderer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from notifier.api.http.decoding import BodyDecoder
from notifier.api.http.json_checks import find_unstorable
from notifier.api.http.tenant_names import checked_tenant
from notifier.api.rules import AddressKind, ChannelRules
from notifier.api.submission.content import check_object, is_given
from notifier.api.templating.documents import ChannelParts
from notifier.domain.errors import InvalidNotification
from notifier.domain.templates import (
    LOCALE_EXPECTED,
    MAX_LOCALES,
    TemplateFault,
    is_locale,
)
from notifier.domain.tenants import TenantId


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """A TemplateParts whose texts are not decoded: then each fault has its whole path."""

    default_locale: str
    locales: dict[str, dict[str, msgspec.Raw]]
    schema: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    tenant: str | None = None


_DOCUMENT: Final = BodyDecoder(_Document)
_CHANNEL_PARTS: Final = BodyDecoder(ChannelParts)
_PARTS: Final[Mapping[AddressKind, tuple[str, ...]]] = {
    AddressKind.EMAIL: ("subject", "body", "html", "mjml"),
    AddressKind.PHONE: ("body",),
    AddressKind.TOKEN: ("subject", "body", "data"),
    AddressKind.USER: ("subject", "body", "data"),
}
_NEEDED: Final[Mapping[AddressKind, tuple[tuple[str, ...], ...]]] = {
    AddressKind.EMAIL: (("subject",), ("body", "html", "mjml")),
    AddressKind.PHONE: (("body",),),
    AddressKind.TOKEN: (("subject", "body", "data"),),
    AddressKind.USER: (("body",),),
}
"""Of each group one part is needed."""


class CheckedTemplate(msgspec.Struct, frozen=True):
    """A document without what was null, encoded the same way each time, and its channels.

    `tenant` is the one that it names.
    """

    document: bytes
    channels: list[str]
    tenant: TenantId | None


def checked_template(body: bytes, channels: Mapping[str, ChannelRules]) -> CheckedTemplate:
    """Returns the document. Raises InvalidNotification with all fields that are wrong."""
    document = _DOCUMENT.decode(body)
    tenant = None if document.tenant is None else checked_tenant(document.tenant)
    faults = [*_locale_faults(document)]
    locales: dict[str, dict[str, object]] = {}
    for locale, by_channel in document.locales.items():
        if not by_channel:
            faults.append(InvalidNotification(f"locales.{locale}", "the texts of a channel"))
        for channel, raw in by_channel.items():
            path = f"locales.{locale}.{channel}"
            try:
                texts = _texts(raw, path, channels.get(channel), ", ".join(channels))
                locales.setdefault(locale, {})[channel] = texts
            except InvalidNotification as error:
                faults += [error, *error.others]
    if is_given(document.schema):
        check_object(document.schema, "schema")
    if faults:
        raise InvalidNotification.of(faults)
    used = sorted({channel for by_channel in locales.values() for channel in by_channel})
    return CheckedTemplate(_encoded(document, locales), used, tenant)


def fault_as_field(fault: TemplateFault) -> InvalidNotification:
    """Returns the field error of what is wrong with a document."""
    place = f"line {fault.line}, column {fault.column}: " if fault.line else ""
    return InvalidNotification(
        fault.part, "a template that can be compiled", detail=f"{place}{fault.detail}"
    )


def _locale_faults(document: _Document) -> list[InvalidNotification]:
    faults = [
        InvalidNotification("locales", LOCALE_EXPECTED, detail=f"{locale[:40]!r} is none")
        for locale in document.locales
        if not is_locale(locale)
    ]
    if not 1 <= len(document.locales) <= MAX_LOCALES:
        faults.append(InvalidNotification("locales", f"1 to {MAX_LOCALES} locales"))
    elif len({locale.lower() for locale in document.locales}) < len(document.locales):
        faults.append(InvalidNotification("locales", "each locale once, whatever its case"))
    if document.default_locale not in document.locales:
        faults.append(InvalidNotification("default_locale", "one of the locales"))
    return faults


def _texts(
    raw: msgspec.Raw, path: str, rules: ChannelRules | None, channels: str
) -> Mapping[str, object]:
    """Returns the texts of one channel that are given. Raises InvalidNotification."""
    if rules is None:
        raise InvalidNotification(path, f"one of {channels}", detail="no such channel")
    try:
        parts = _CHANNEL_PARTS.decode(raw)
    except InvalidNotification as error:
        raise InvalidNotification.of(
            [
                InvalidNotification(f"{path}.{each.field}", each.expected, detail=each.detail)
                for each in (error, *error.others)
            ]
        ) from error
    names = ChannelParts.__struct_fields__
    given = {name: part for name in names if is_given(part := getattr(parts, name))}
    if faults := _part_faults(rules.address, given, path):
        raise InvalidNotification.of(faults)
    return given


def _part_faults(
    kind: AddressKind, given: Mapping[str, object], path: str
) -> list[InvalidNotification]:
    faults = [
        InvalidNotification(f"{path}.{name}", "null: this channel has no such part")
        for name in given
        if name not in _PARTS[kind]
    ]
    if "html" in given and "mjml" in given:
        faults.append(InvalidNotification(f"{path}.mjml", "either html or mjml"))
    faults += [
        InvalidNotification(path, f"a non-empty {' or '.join(group)}")
        for group in _NEEDED[kind]
        if not any(given.get(name) for name in group)
    ]
    for name, part in given.items():
        if isinstance(part, msgspec.Raw):
            check_object(part, f"{path}.{name}")
        elif fault := find_unstorable(part, f"{path}.{name}"):
            faults.append(fault)
    return faults


def _encoded(document: _Document, locales: Mapping[str, object]) -> bytes:
    parts: dict[str, object] = {"default_locale": document.default_locale, "locales": locales}
    if is_given(document.schema):
        parts["schema"] = document.schema
    # Decoded once more, so that white space inside data and schema makes no new version.
    return msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(parts)), order="sorted")

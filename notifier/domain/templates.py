"""Templates: their names, whose texts a notification gets, and what may be wrong with a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from notifier.domain.one_line import CONTROL_CHARACTER
from notifier.domain.tenants import TenantId

TEMPLATE_NAME: Final = r"[a-z][a-z0-9_-]{0,63}"
TEMPLATE_NAME_EXPECTED: Final = (
    "a name like order-shipped: a-z, 0-9, _ and -, a letter first, at most 64"
)
LOCALE: Final = r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}"
LOCALE_EXPECTED: Final = "a language tag such as en or de-AT (BCP 47)"
MAX_LOCALES: Final = 20
MAX_TEMPLATES: Final = 1000
"""Of one tenant."""
MAX_TEMPLATE_BYTES: Final = 512 * 1024
MAX_VARIABLES_BYTES: Final = 64 * 1024
MAX_SUBJECT_LENGTH: Final = 998
"""Characters: the longest line of an email (RFC 5322, section 2.1.1)."""
TEXT_PARTS: Final = ("subject", "body", "html")
REF_EXPECTED: Final = "the name of a template, or of one of its versions: order-shipped@3"
_REF: Final = re.compile(rf"({TEMPLATE_NAME})(?:@([1-9][0-9]{{0,8}}))?")
_LOCALE: Final = re.compile(LOCALE)

Parts = Mapping[str, object]
"""The texts of a notification: `subject`, `body`, `html`, and `data` with any JSON."""


class TemplateRef(NamedTuple):
    """What a submit calls a template: its name, and a version, None for the newest one."""

    name: str
    version: int | None

    @classmethod
    def parse(cls, text: str) -> TemplateRef:
        """Parse `name` or `name@3`. Raises ValueError."""
        match = _REF.fullmatch(text)
        if match is None:
            raise ValueError(f"got {text[:80]!r}, expected {REF_EXPECTED}")
        return cls(match[1], int(match[2]) if match[2] else None)

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


class FaultKind(StrEnum):
    """Why a template is not saved, or a notification not rendered.

    UNDEFINED: a variable is missing. SCHEMA: the variables do not fit the schema. LIMIT: it needs
    too much time or memory, or its text is too long. TEXT: the channel cannot carry the text.
    MISSING: there is no such template, or nothing for the channel.
    """

    SYNTAX = "syntax"
    UNDEFINED = "undefined"
    SCHEMA = "schema"
    LIMIT = "limit"
    ERROR = "error"
    TEXT = "text"
    MISSING = "missing"


class TemplateFault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, in which part. `line` and `column` are 0 if they are not known.

    `detail` holds nothing of the variables, which may be secret; of the schema it names fields.
    """

    kind: FaultKind
    part: str
    detail: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f", line {self.line}" * bool(self.line) + f", column {self.column}" * bool(
            self.column
        )
        return f"{self.part}{place}: {self.detail}"


class TemplateVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a template, which never changes.

    `locales` has the texts of each channel for each locale, as they are rendered: HTML in place of
    MJML. `schema` is an encoded JSON Schema, empty if it has none.
    """

    id: UUID
    tenant: TenantId
    name: str
    version: int
    default_locale: str
    locales: Mapping[str, Mapping[str, Parts]]
    schema: bytes = b""
    size: int = 0

    @property
    def ref(self) -> str:
        """Its name and version, such as `order-shipped@3`."""
        return f"{self.name}@{self.version}"

    @property
    def channels(self) -> list[str]:
        """The channels that it has texts for, by name."""
        return sorted({channel for channels in self.locales.values() for channel in channels})

    def locale_for(self, channel: str, wanted: str | None) -> str | None:
        """Return the locale whose text a channel gets, None if there is none for the channel.

        The wanted one, or else one that is less specific (RFC 4647, 3.4), or else the default.
        """
        by_tag = {locale.lower(): locale for locale in self.locales}
        for tag in (*_less_specific(wanted or ""), self.default_locale.lower()):
            locale = by_tag.get(tag)
            if locale is not None and channel in self.locales[locale]:
                return locale
        return None


def _less_specific(tag: str) -> Iterator[str]:
    """Yield a tag and its prefixes, in lower case: zh-hant-tw, zh-hant, zh."""
    rest = tag.lower()
    while rest:
        yield rest
        rest = rest.rpartition("-")[0]


def is_locale(text: str) -> bool:
    """Return whether a text has the form of a language tag."""
    return _LOCALE.fullmatch(text) is not None


def is_template_name(text: str) -> bool:
    """Return whether a text may be the name of a template."""
    return re.fullmatch(TEMPLATE_NAME, text) is not None


def text_fault(parts: Parts, max_bytes: int) -> TemplateFault | None:
    """Return what keeps rendered parts from being sent, None if nothing does.

    The same rules as for the content of a submit that has no template.
    """
    texts = {name: text for name in TEXT_PARTS if isinstance(text := parts.get(name), str)}
    if sum(len(text.encode()) for text in texts.values()) > max_bytes:
        return _wrong("html" if "html" in texts else "body", f"longer than {max_bytes:,} bytes")
    subject = texts.get("subject")
    if subject is not None:
        if not subject:
            return _wrong("subject", "it is empty")
        if CONTROL_CHARACTER.search(subject):
            return _wrong("subject", "it has a line break or another control character")
        if len(subject) > MAX_SUBJECT_LENGTH:
            return _wrong("subject", f"it is longer than {MAX_SUBJECT_LENGTH} characters")
    elif not texts.get("body") and not texts.get("html") and not parts.get("data"):
        return _wrong("body", "it is empty")
    for name, text in texts.items():
        if "\0" in text:
            return _wrong(name, "it has a NUL character")
    return None


def _wrong(part: str, detail: str) -> TemplateFault:
    return TemplateFault(kind=FaultKind.TEXT, part=part, detail=detail)

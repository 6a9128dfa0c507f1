"""Templates on their way out: the versions used last, and the content of a row that has one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final
from uuid import UUID

import msgspec

from notifier.domain.errors import InfrastructureError
from notifier.domain.outcome import Unavailable
from notifier.domain.templates import FaultKind, TemplateFault, text_fault
from notifier.ports.templates import RenderJob

if TYPE_CHECKING:
    from notifier.domain.notification import Claimed
    from notifier.domain.templates import Parts, TemplateVersion
    from notifier.ports.templates import TemplateReader, TemplateRenderer

MAX_CACHED_BYTES: Final = 32 * 1024 * 1024
"""Of documents in one process; the objects made from them take a few times as much."""
TEMPLATED: Final = b'{"template":"'
"""How the stored content of a notification with a template begins."""
UNAVAILABLE_CODE: Final = "template_unavailable"


class TemplatedContent(msgspec.Struct, frozen=True):
    """The fields that the stored content of a notification with a template has for itself.

    `template_channel` is the one whose texts are sent, also on the channel for tests. Read by a
    worker of another version: fields may be added. The order of the fields counts:
    readers look for the first two at the begin.
    """

    template: str
    locale: str
    template_id: UUID
    template_channel: str
    variables: msgspec.Raw = msgspec.Raw(b"{}")


class TemplateCache:
    """The versions used last. They never change, so none has to be read again."""

    def __init__(self, reader: TemplateReader, *, max_bytes: int = MAX_CACHED_BYTES) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._size = 0
        self._versions: OrderedDict[UUID, TemplateVersion] = OrderedDict()
        self._reading = asyncio.Lock()

    async def get(self, id_: UUID) -> TemplateVersion | None:
        """Return a version, None if there is none. Raises StoreUnavailable."""
        if (version := self._versions.get(id_)) is None:
            async with self._reading:  # whoever waits for the same version finds it afterwards
                version = self._versions.get(id_)
                if version is None and (version := await self._reader.load(id_)) is not None:
                    self._add(version)
        if version is not None and id_ in self._versions:
            self._versions.move_to_end(id_)
        return version

    def _add(self, version: TemplateVersion) -> None:
        self._versions[version.id] = version
        self._size += version.size
        while self._size > self._max_bytes and len(self._versions) > 1:
            _, oldest = self._versions.popitem(last=False)
            self._size -= oldest.size


class TemplateContents:
    """Implements ports.templates.ContentRenderer."""

    def __init__(
        self,
        *,
        versions: TemplateCache,
        renderer: TemplateRenderer,
        max_bytes: int,
    ) -> None:
        self._versions = versions
        self._renderer = renderer
        self._max_bytes = max_bytes

    async def render(self, claimed: Claimed) -> Parts | TemplateFault | Unavailable:
        try:
            own = _decode_own(claimed.content)
            others = _decode(claimed.content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return TemplateFault(
                kind=FaultKind.MISSING, part="content", detail="it names no template"
            )
        try:
            parts = await self._rendered(own)
        except InfrastructureError as error:
            # Not the row's fault: it is due again soon, and spends no try.
            return Unavailable(code=UNAVAILABLE_CODE, detail=str(error), is_local=True)
        if isinstance(parts, TemplateFault):
            return parts
        for name in TemplatedContent.__struct_fields__:
            others.pop(name, None)
        return {**others, **parts}

    async def _rendered(self, own: TemplatedContent) -> Parts | TemplateFault:
        """Raises StoreUnavailable and RendererUnavailable."""
        channel = own.template_channel
        version = await self._versions.get(own.template_id)
        parts = None if version is None else version.locales.get(own.locale, {}).get(channel)
        if version is None or parts is None:
            detail = f"there is no template {own.template} in {own.locale} for {channel}"
            return TemplateFault(kind=FaultKind.MISSING, part="template", detail=detail)
        job = RenderJob(
            version.tenant,
            encoded_parts(parts),
            bytes(own.variables),
            self._max_bytes,
            is_accepted=True,
        )
        rendered = await self._renderer.render(job)
        if not isinstance(rendered, Mapping):
            return rendered[0]
        return text_fault(rendered, self._max_bytes) or rendered


def encoded_parts(parts: Parts) -> bytes:
    """Encode the texts of one channel in one locale, the same bytes each time."""
    return msgspec.json.encode(parts)


def encode_templated(own: TemplatedContent, others: Mapping[str, object]) -> bytes:
    """Encode the content of a notification with a template, as it is stored."""
    document = {
        "template": own.template,
        "locale": own.locale,
        "template_id": own.template_id,
        "template_channel": own.template_channel,
        **others,
        "variables": own.variables,
    }
    return msgspec.json.encode(document)


_decode_own: Final = msgspec.json.Decoder(TemplatedContent).decode
_decode: Final = msgspec.json.Decoder(dict[str, object]).decode

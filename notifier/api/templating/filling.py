"""Fills a submit that has a template: finds the version, and checks it by rendering it once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

import msgspec

from notifier.api.http.deadline import Deadline
from notifier.api.requests import Content
from notifier.api.rules import AddressKind
from notifier.api.submission.content import check_content, encode_content
from notifier.delivery.templates import (
    TemplateCache,
    TemplatedContent,
    encode_templated,
    encoded_parts,
)
from notifier.domain.errors import InvalidNotification
from notifier.domain.features import features_of
from notifier.domain.notification import NewNotification
from notifier.domain.templates import (
    REF_EXPECTED,
    FaultKind,
    Parts,
    TemplateFault,
    TemplateRef,
    TemplateVersion,
    text_fault,
)
from notifier.domain.tenants import TenantId
from notifier.domain.text_segments import count_segments
from notifier.ports.templates import RenderJob, TemplateReader, TemplateRenderer

_TEMPLATE: Final = "template"
_VARIABLES: Final = "variables"
TEMPLATE_FEATURES: Final = features_of([_TEMPLATE])


MAX_PINNED: Final = 10_000
"""How many references that name a version are remembered: the version has the same id forever."""

Found = Mapping[tuple[TenantId, TemplateRef], UUID]
"""The version of each reference that was looked up, by its tenant."""


class Unfilled(NamedTuple):
    """A valid submit with a template, whose content is not known yet.

    `channel` is the one that was asked for, also by a test key. `content` has what is not in the
    template: sender, copies, headers, files; `others` the same as it is stored.
    """

    new: NewNotification
    channel: str
    kind: AddressKind
    ref: TemplateRef
    locale: str | None
    variables: bytes
    content: Content
    others: Mapping[str, object]


class Filled(NamedTuple):
    """A notification that can be stored, and the content that its recipient would get now."""

    new: NewNotification
    content: Content
    locale: str | None


class TemplateFilling:
    """Fills submits with one deployment's templates."""

    def __init__(
        self,
        *,
        reader: TemplateReader,
        renderer: TemplateRenderer,
        max_bytes: int,
        max_pinned: int = MAX_PINNED,
    ) -> None:
        self._reader = reader
        self._renderer = renderer
        self._versions = TemplateCache(reader)
        self._max_bytes = max_bytes
        self._max_pinned = max_pinned
        self._pinned: dict[tuple[TenantId, TemplateRef], UUID] = {}

    async def find(self, submits: Sequence[Unfilled]) -> Found:
        """Returns the versions that these submits ask for, with one statement for each tenant."""
        asked = {(unfilled.new.tenant, unfilled.ref) for unfilled in submits}
        found = {each: self._pinned[each] for each in asked if each in self._pinned}
        unknown: defaultdict[TenantId, list[TemplateRef]] = defaultdict(list)
        for tenant, ref in asked - found.keys():
            unknown[tenant].append(ref)
        for tenant, refs in unknown.items():
            for ref, id_ in (await self._reader.find(tenant, refs)).items():
                found[tenant, ref] = id_
                if ref.version is not None:
                    self._pinned[tenant, ref] = id_
        while len(self._pinned) > self._max_pinned:
            del self._pinned[next(iter(self._pinned))]
        return found

    async def filled(
        self, unfilled: Unfilled, until: Deadline, found: Found | None = None
    ) -> Filled:
        """Returns the notification with its content.

        `found` has the version of its template, if that was looked up before. Raises
        InvalidNotification, StoreUnavailable, and RendererUnavailable.
        """
        async with until.of_store():
            if found is None:
                found = await self.find([unfilled])
            version = await self._version(unfilled.ref, unfilled.new.tenant, found)
        channel = unfilled.channel
        locale = version.locale_for(channel, unfilled.locale)
        if locale is None:
            expected = f"one that the template has: {', '.join(version.channels)}"
            raise InvalidNotification("channel", expected)
        texts = version.locales[locale][channel]
        async with until.of_renderer():
            parts = await self._rendered(version, texts, unfilled.variables)
        content = self._content(unfilled, parts)
        own = TemplatedContent(
            template=version.ref,
            locale=locale,
            template_id=version.id,
            template_channel=channel,
            variables=msgspec.Raw(unfilled.variables),
        )
        is_text = unfilled.kind is AddressKind.PHONE
        new = msgspec.structs.replace(
            unfilled.new,
            content=encode_templated(own, unfilled.others),
            segments=count_segments(content.body or "") if is_text else None,
            template=version.ref,
            features=unfilled.new.features | TEMPLATE_FEATURES,
        )
        return Filled(new, content, locale)

    async def filled_with(
        self, unfilled: Unfilled, until: Deadline, template: str
    ) -> NewNotification:
        """Returns the notification with the content of this version, such as `order@3`.

        Raises as `filled`.
        """
        return (await self.filled(unfilled._replace(ref=TemplateRef.parse(template)), until)).new

    async def _version(self, ref: TemplateRef, tenant: TenantId, found: Found) -> TemplateVersion:
        id_ = found.get((tenant, ref))
        version = None if id_ is None else await self._versions.get(id_)
        if version is None:
            raise InvalidNotification(_TEMPLATE, REF_EXPECTED, detail=f"there is no template {ref}")
        return version

    async def _rendered(self, version: TemplateVersion, texts: Parts, variables: bytes) -> Parts:
        job = RenderJob(
            version.tenant, encoded_parts(texts), variables, self._max_bytes, version.schema
        )
        rendered = await self._renderer.render(job)
        if not isinstance(rendered, Mapping):
            raise InvalidNotification.of([_field_of(fault, version.ref) for fault in rendered])
        if fault := text_fault(rendered, self._max_bytes):
            raise _field_of(fault, version.ref)
        return rendered

    def _content(self, unfilled: Unfilled, parts: Parts) -> Content:
        """Returns the whole content. It must be what a submit without template may have."""
        given = dict(parts)
        if "data" in given:
            given["data"] = msgspec.Raw(msgspec.json.encode(given["data"]))
        content = msgspec.structs.replace(unfilled.content, **given)
        try:
            check_content(unfilled.kind, content)
            encode_content(content, max_bytes=self._max_bytes, others=unfilled.others)
        except InvalidNotification as error:
            detail = f"rendered as {error.field}, which is wrong: expected {error.expected}"
            raise InvalidNotification(_TEMPLATE, error.expected, detail=detail) from error
        return content


def _field_of(fault: TemplateFault, ref: str) -> InvalidNotification:
    """Returns the field error of a submit whose template cannot be rendered."""
    match fault.kind:
        case FaultKind.SCHEMA:
            return InvalidNotification(
                fault.part, "a value that fits the template's schema", detail=fault.detail
            )
        case FaultKind.UNDEFINED:
            expected = "every variable that the template uses"
            return InvalidNotification(_VARIABLES, expected, detail=f"{ref}, {fault}")
        case _:
            return InvalidNotification(
                _TEMPLATE, "one that can be rendered with these variables", detail=f"{ref}, {fault}"
            )

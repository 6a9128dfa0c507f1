"""Templates: where their versions are stored, and what renders them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol
from uuid import UUID

from notifier.domain.notification import Claimed
from notifier.domain.outcome import Unavailable
from notifier.domain.templates import Parts, TemplateFault, TemplateRef, TemplateVersion
from notifier.domain.tenants import TenantId
from notifier.ports.keys import Author


class TemplateReader(Protocol):
    """Reads versions of templates. All methods raise StoreUnavailable."""

    async def find(
        self, tenant: TenantId, refs: Collection[TemplateRef]
    ) -> Mapping[TemplateRef, UUID]:
        """Return the versions of a tenant's templates; those that do not exist are left out."""
        ...

    async def load(self, id: UUID) -> TemplateVersion | None:  # noqa: A002 the field's word
        """Return a version, None if there is none. It never changes."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSummary:
    """A version in a list. `versions` are the numbers of all versions of its template."""

    name: str
    version: int
    channels: Sequence[str]
    created_at: datetime
    actor: str
    versions: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTemplate:
    """A version to be saved: its document as submitted, and what is rendered, both encoded."""

    name: str
    channels: Sequence[str]
    document: bytes
    compiled: bytes


class SavedTemplate(NamedTuple):
    """A version that is stored. `is_new` is False if the newest version was the same before."""

    summary: TemplateSummary
    is_new: bool


class TemplateStore(TemplateReader, Protocol):
    """Keeps the templates of all tenants. Versions are added, and never changed."""

    async def save(
        self, tenant: TenantId, new: NewTemplate, author: Author
    ) -> SavedTemplate | None:
        """Store a document as the next version, unless it is that of the newest one.

        Returns None if it would be one template more than a tenant may have.
        """
        ...

    async def templates(self, tenant: TenantId) -> Sequence[TemplateSummary]:
        """Return the newest version of each template by name."""
        ...

    async def template(self, tenant: TenantId, name: str) -> TemplateSummary | None:
        """Return the newest version of a template with the numbers of all, None if it has none."""
        ...

    async def document(self, tenant: TenantId, name: str, version: int) -> bytes | None:
        """Return a version's document as submitted, None if there is none."""
        ...


class RenderJob(NamedTuple):
    """What is to be rendered: encoded parts, variables and schema (empty: none).

    `is_accepted`: a submit with it passed the check. It may take more time and memory than the
    check allows, since neither is the same twice.
    """

    tenant: TenantId
    parts: bytes
    variables: bytes
    max_bytes: int
    schema: bytes = b""
    is_accepted: bool = False


class TemplateRenderer(Protocol):
    """Compiles and renders templates, whatever they contain.

    Tenants wait in turn. Raises RendererUnavailable if it cannot run, or if too many requests of
    the tenant wait.
    """

    async def render(self, job: RenderJob) -> Parts | Sequence[TemplateFault]:
        """Return the texts, or what is wrong: with the schema all faults, otherwise one."""
        ...

    async def compile(self, tenant: TenantId, document: bytes) -> bytes | Sequence[TemplateFault]:
        """Return a document as it is rendered, with HTML in place of MJML, or what is wrong."""
        ...


class ContentRenderer(Protocol):
    """Renders the content of claimed rows that have a template."""

    async def render(self, claimed: Claimed) -> Parts | TemplateFault | Unavailable:
        """Return the whole content, what is wrong, or that it cannot be rendered at the moment."""
        ...

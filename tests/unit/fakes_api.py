"""An in-memory store behind the ports that the API needs, and the API served over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
from litestar import Litestar

from notifier.adapters.templating import child
from notifier.adapters.templating.messages import Compile, Render
from notifier.api.app import create_api
from notifier.api.auth.gate import KeyAuth
from notifier.api.http.server import open_server
from notifier.api.routes.events import EventSources
from notifier.api.routes.inbox import InboxSources
from notifier.api.rules import ApiRules
from notifier.api.submission.validation import SubmitValidator
from notifier.app.accepting import api_rules
from notifier.delivery.keyed_batch import answer_of
from notifier.domain.blobs import BlobId, StoredBlob
from notifier.domain.controls import BreakerState, Pause, Scope, ScopeKind
from notifier.domain.credentials import Mode
from notifier.domain.errors import FeatureUnavailable, IdempotencyKeyReused, StoreRejected
from notifier.domain.explanation.facts import (
    Ahead,
    Blocker,
    BlockerKind,
    Expected,
    Explanation,
    Subject,
)
from notifier.domain.idempotency import IdempotencyKey
from notifier.domain.notification import (
    WAITING,
    AttemptView,
    NewNotification,
    NotificationId,
    NotificationView,
    ResultView,
    Status,
    WorkerId,
)
from notifier.domain.quiet_hours import QuietHours
from notifier.domain.templates import Parts, TemplateFault, TemplateRef, TemplateVersion
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.ports.acceptor import Acceptor, Refusal, Replayed, Reply
from notifier.ports.controls import PauseStore, QuietHoursStore
from notifier.ports.failures import FailureGroupReader
from notifier.ports.keys import AccessStore, Author
from notifier.ports.queries import (
    ALL_LIVE,
    Explainer,
    Filter,
    Page,
    PauseState,
    ProviderState,
    QueueState,
    Reader,
    StatusReader,
    View,
    WorkerState,
)
from notifier.ports.stats import StatsReader
from notifier.ports.store import KeyOwner
from notifier.ports.templates import (
    NewTemplate,
    RenderJob,
    SavedTemplate,
    TemplateRenderer,
    TemplateStore,
    TemplateSummary,
)
from notifier.settings.tree import ChannelSettings, Settings
from tests.memory_access import MemoryAccess
from tests.memory_failure_groups import MemoryFailureGroups
from tests.memory_inboxes import memory_inboxes
from tests.memory_receipts import MemoryReceipts
from tests.memory_schedules import MemorySchedules
from tests.memory_stats import MemoryStats
from tests.memory_suppressions import MemorySuppressions
from tests.memory_webhooks import MemoryWebhooks
from tests.unit.fakes_operations import MemoryOperations

SINCE_AT = datetime(2030, 1, 31, 8, tzinfo=UTC)
PROBE_AT = SINCE_AT + timedelta(seconds=5)
DEFAULT_RULES = replace(
    api_rules(
        Settings(
            channels={
                "email": ChannelSettings(address="email", provider="smtp"),
                "sms": ChannelSettings(address="phone", provider="twilio"),
                "push": ChannelSettings(address="token", provider="fcm"),
            }
        )
    ),
    providers=(),
)
"""The rules of the default settings with three channels, and with no provider."""


def make_rules(**changes: Any) -> ApiRules:
    """The default rules with changes."""
    return replace(DEFAULT_RULES, **changes)


class InlineRenderer:
    """Renders in this process what would be rendered in one of its own: tests know what it is."""

    async def render(self, job: RenderJob) -> Parts | Sequence[TemplateFault]:
        reply = child._answer(
            Render(job.parts, job.variables, job.max_bytes, job.schema, job.is_accepted)
        )
        if reply.faults:
            return reply.faults
        parts: Parts = msgspec.json.decode(reply.result)
        return parts

    async def compile(self, tenant: TenantId, document: bytes) -> bytes | Sequence[TemplateFault]:
        del tenant
        reply = child._answer(Compile(document))
        return reply.faults or reply.result


class MemoryTemplates:
    """A TemplateStore in memory. `asked` has the references of each look-up."""

    def __init__(self) -> None:
        self.asked: list[set[TemplateRef]] = []
        self.saved: dict[tuple[TenantId, str], list[_Saved]] = {}

    async def find(
        self, tenant: TenantId, refs: Collection[TemplateRef]
    ) -> Mapping[TemplateRef, UUID]:
        self.asked.append(set(refs))
        newest = {ref: len(self.saved.get((tenant, ref.name), ())) for ref in refs}
        found = {ref: self._find(tenant, ref.name, ref.version or newest[ref]) for ref in refs}
        return {ref: saved.id for ref, saved in found.items() if saved is not None}

    async def load(self, id: UUID) -> TemplateVersion | None:  # noqa: A002 the port's word
        for saved in chain.from_iterable(self.saved.values()):
            if saved.id == id:
                return saved.version
        return None

    async def save(
        self, tenant: TenantId, new: NewTemplate, author: Author
    ) -> SavedTemplate | None:
        versions = self.saved.setdefault((tenant, new.name), [])
        is_new = not versions or versions[-1].new.document != new.document
        if is_new:
            versions.append(_Saved(uuid4(), tenant, len(versions) + 1, new, author.actor))
        return SavedTemplate(versions[-1].summary, is_new)

    async def templates(self, tenant: TenantId) -> Sequence[TemplateSummary]:
        return [
            versions[-1].summary
            for (owner, _), versions in sorted(self.saved.items())
            if owner == tenant
        ]

    async def template(self, tenant: TenantId, name: str) -> TemplateSummary | None:
        versions = self.saved.get((tenant, name))
        if versions is None:
            return None
        numbers = range(len(versions), 0, -1)
        return replace(versions[-1].summary, versions=list(numbers))

    async def document(self, tenant: TenantId, name: str, version: int) -> bytes | None:
        saved = self._find(tenant, name, version)
        return None if saved is None else saved.new.document

    def _find(self, tenant: TenantId, name: str, version: int) -> _Saved | None:
        versions = self.saved.get((tenant, name), [])
        return versions[version - 1] if 0 < version <= len(versions) else None


@dataclass(frozen=True)
class _Saved:
    id: UUID
    tenant: TenantId
    number: int
    new: NewTemplate
    actor: str

    @property
    def version(self) -> TemplateVersion:
        decoded = msgspec.json.decode(self.new.compiled)
        schema = decoded.get("schema")
        return TemplateVersion(
            id=self.id,
            tenant=self.tenant,
            name=self.new.name,
            version=self.number,
            default_locale=decoded["default_locale"],
            locales=decoded["locales"],
            schema=b"" if schema is None else msgspec.json.encode(schema),
            size=len(self.new.compiled),
        )

    @property
    def summary(self) -> TemplateSummary:
        return TemplateSummary(
            name=self.new.name,
            version=self.number,
            channels=self.new.channels,
            created_at=SINCE_AT,
            actor=self.actor,
        )


class MemoryStore:
    """Acceptor, Reader, StatusReader, Explainer, PauseStore and BlobStore in one.

    Every method raises `error`, if it is set. Submits wait until `released` is set. A submit to
    `rejected_recipient` becomes StoreRejected, and one with a feature `lacking`, if it is set.
    """

    def __init__(self) -> None:
        self.new: dict[NotificationId, NewNotification] = {}
        self.views: dict[NotificationId, NotificationView] = {}
        self.error: Exception | None = None
        self.rejected_recipient: str | None = None
        self.lacking: FeatureUnavailable | None = None
        self.entered = asyncio.Event()
        self.released = asyncio.Event()
        self.released.set()
        self.filters: list[Filter] = []
        self.paused: dict[Scope, Pause] = {}
        self.blobs: dict[tuple[TenantId, BlobId], tuple[bytes, bool]] = {}
        self.mail_senders: dict[tuple[TenantId, BlobId], tuple[str, ...]] = {}
        self.blob_questions = 0
        self.template_questions = 0
        self.breaker = BreakerState.OPEN
        self.probed: list[str] = []
        self.templates = MemoryTemplates()
        self.owners: dict[UUID, KeyOwner] = {}
        self.quiet: dict[TenantId, QuietHours] = {}
        self.tenants = {DEFAULT_TENANT, TenantId("shop")}

    async def quiet_hours(self) -> Mapping[TenantId, QuietHours]:
        self._raise_error()
        return self.quiet

    async def probe_now(self, provider: str, note: str, author: Author) -> bool:
        del note, author
        self._raise_error()
        self.probed.append(provider)
        return True

    async def put_quiet_hours(self, tenant: TenantId, hours: QuietHours, author: Author) -> bool:
        del author
        self._raise_error()
        if tenant in self.tenants:
            self.quiet[tenant] = hours
        return tenant in self.tenants

    async def delete_quiet_hours(self, tenant: TenantId, author: Author) -> bool:
        del author
        self._raise_error()
        return self.quiet.pop(tenant, None) is not None

    def refusal(self, features: Collection[str]) -> FeatureUnavailable | None:
        del features
        return self.lacking

    async def submit(self, items: Sequence[NewNotification]) -> Sequence[Reply | Refusal]:
        self._raise_error()
        self.entered.set()
        await self.released.wait()
        return [self._store(item) for item in items]

    async def earlier(self, key: IdempotencyKey) -> Replayed | IdempotencyKeyReused | None:
        self._raise_error()
        owner = self.owners.get(key.digest)
        return None if owner is None else answer_of(owner, key)

    async def get(
        self,
        id: NotificationId,  # noqa: A002 the port's word
        *,
        view: View = ALL_LIVE,
        with_content: bool = False,
        with_receipts: bool = False,
    ) -> NotificationView | None:
        self._raise_error()
        row = self.views.get(id)
        if row is None or not _is_seen(row, view):
            return None
        return replace(
            row,
            content=row.content if with_content else None,
            receipts=row.receipts if with_receipts else None,
        )

    async def explain(
        self,
        id: NotificationId,  # noqa: A002 the port's word
        view: View,
    ) -> Explanation | None:
        """A pause of its queue holds what waits."""
        row = await self.get(id, view=view)
        if row is None:
            return None
        pause = Blocker(
            kind=BlockerKind.PAUSE,
            name=f"queue:{row.queue}",
            until_at=PROBE_AT,
            detail="by key:8Rk2vQ0ZpLx1: wrong newsletter",
        )
        subject = Subject(
            id=row.id,
            status=row.status,
            queue=row.queue,
            as_of_at=SINCE_AT,
            expires_at=row.expires_at,
        )
        if row.status not in WAITING:
            return Explanation(subject=subject)
        return Explanation(
            subject=subject,
            blockers=[pause],
            ahead=Ahead(4210, is_exact=True, at_most=4210),
            expected=Expected(PROBE_AT, PROBE_AT + timedelta(days=1)),
        )

    async def templates_of(
        self, ids: Collection[NotificationId]
    ) -> Mapping[NotificationId, str | None]:
        self._raise_error()
        self.template_questions += 1
        return {id_: self.views[id_].template for id_ in ids}

    async def notifications(self, selection: Filter) -> Page:
        self._raise_error()
        self.filters.append(selection)
        newest = sorted(self.views.values(), key=lambda view: view.id, reverse=True)
        found = [view for view in newest if _matches(view, selection)]
        views = found[: selection.limit]
        return Page(views=views, next_before=views[-1].id if len(found) > len(views) else None)

    async def workers(self) -> Sequence[WorkerState]:
        self._raise_error()
        return [
            WorkerState(
                id=WorkerId(UUID(int=7)),
                kind="worker",
                host="node-1",
                pid=17,
                version="0.2.0",
                started_at=SINCE_AT,
                beat_at=PROBE_AT,
                consumers=64,
                busy=3,
                lacks=("copies",),
            )
        ]

    async def queues(self) -> Sequence[QueueState]:
        self._raise_error()
        return [
            QueueState(
                queue="email.high",
                ready=3,
                due=1,
                consumers=2,
                busy=1,
                rate_per_s=12.5,
                oldest_wait_s=0.25,
                limited_by="need",
                paused=False,
            )
        ]

    async def providers(self) -> Sequence[ProviderState]:
        self._raise_error()
        return [
            ProviderState(
                provider="smtp",
                channels=("email",),
                breaker=self.breaker,
                reason="errors",
                code="503",
                since_at=SINCE_AT,
                probe_at=None if self.breaker is BreakerState.CLOSED else PROBE_AT,
                paused=Scope(ScopeKind.PROVIDER, "smtp") in self.paused,
                calls=20,
                failures=11,
            )
        ]

    async def pauses(self) -> Sequence[PauseState]:
        self._raise_error()
        return [PauseState(pause=self.paused[scope], matches=True) for scope in sorted(self.paused)]

    async def pause(
        self,
        scope: Scope,
        *,
        note: str,
        for_s: float | None,
        author: Author | None = None,  # noqa: ARG002 there is no audit
    ) -> Pause:
        self._raise_error()
        self.paused[scope] = Pause(
            scope=scope,
            note=note,
            age_s=0.0,
            paused_at=SINCE_AT,
            expires_at=None if for_s is None else SINCE_AT + timedelta(seconds=for_s),
            expires_in_s=for_s,
        )
        return self.paused[scope]

    async def resume(
        self,
        scope: Scope,
        author: Author | None = None,  # noqa: ARG002 there is no audit
    ) -> bool:
        self._raise_error()
        return self.paused.pop(scope, None) is not None

    async def keep(self, tenant: TenantId, ids: Collection[BlobId]) -> Mapping[BlobId, StoredBlob]:
        self._raise_error()
        self.blob_questions += 1
        found = {id_: self.blobs.get((tenant, id_)) for id_ in ids}
        return {
            id_: StoredBlob(len(blob[0]), blob[1], self.mail_senders.get((tenant, id_), ()))
            for id_, blob in found.items()
            if blob
        }

    async def put(
        self,
        tenant: TenantId,
        id: BlobId,  # noqa: A002 the port's word
        data: bytes,
        *,
        is_mail: bool,
        senders: Sequence[str] = (),
    ) -> bool:
        self._raise_error()
        before = self.blobs.get((tenant, id))
        self.blobs[tenant, id] = (data, is_mail or bool(before and before[1]))
        self.mail_senders[tenant, id] = tuple(senders)
        return before is None

    def fail(self, id: NotificationId) -> None:  # noqa: A002 the port's word
        """Marks a stored notification as failed after one attempt."""
        now = datetime.now(UTC)
        view = self.views[id]
        attempt = AttemptView(
            number=1,
            provider="smtp",
            outcome="refused",
            code="550",
            detail="no such user",
            queue_wait_s=0.01,
            started_at=now,
            finished_at=now,
            next_at=None,
            repeats=0,
            late=False,
        )
        result = ResultView(
            reason="refused", provider="smtp", code="550", detail="no such user", at=now
        )
        self.views[id] = replace(
            view,
            status=Status.FAILED,
            tries=1,
            last_error="550",
            provider="smtp",
            result=result,
            attempts=(attempt,),
        )

    def _raise_error(self) -> None:
        if self.error is not None:
            raise self.error

    def _store(self, item: NewNotification) -> Status | Refusal:
        if item.features and self.lacking:
            return self.lacking
        if item.recipient == self.rejected_recipient:
            return StoreRejected("invalid byte sequence in secret@example.com")
        status = Status.QUEUED if item.delay is None else Status.SCHEDULED
        now = datetime.now(UTC)
        self.new[item.id] = item
        self.views[item.id] = NotificationView(
            id=item.id,
            status=status,
            queue=item.queue,
            recipient=item.recipient,
            content=item.content,
            template=item.template,
            metadata=item.metadata,
            tag=item.tag,
            topic=item.topic,
            tries=0,
            max_tries=item.max_tries,
            last_error=None,
            created_at=now,
            updated_at=now,
            due_at=now + (item.delay or timedelta()),
            expires_at=now + item.ttl,
            tenant=item.tenant,
            test_channel=item.test_channel,
        )
        return status


def _is_seen(row: NotificationView, view: View) -> bool:
    is_of_mode = (view.mode is Mode.TEST) == bool(row.test_channel)
    return is_of_mode and view.tenant in {None, row.tenant}


def _channel(view: NotificationView) -> str:
    return view.test_channel or view.queue.channel


def _matches(view: NotificationView, selection: Filter) -> bool:
    created = view.created_at.timestamp()
    return (
        _is_seen(view, selection.view)
        and view.status in (selection.status or (view.status,))
        and _channel(view) in (selection.channel or (_channel(view),))
        and view.queue.priority in (selection.priority or (view.queue.priority,))
        and (selection.created_from is None or created >= selection.created_from)
        and (selection.created_to is None or created < selection.created_to)
        and (selection.before is None or view.id < selection.before)
    )


@dataclass(frozen=True)
class FakeReadiness:
    """A process that is not ready for these reasons."""

    reasons: Sequence[str] = ()

    def why_not_ready(self) -> Sequence[str]:
        return self.reasons


class FakeMetrics:
    """A process with one metric."""

    def render(self) -> tuple[bytes, str]:
        return b"notifier_up 1\n", "text/plain; version=1.0.0"


def make_api(
    store: MemoryStore,
    rules: ApiRules = DEFAULT_RULES,
    reasons: Sequence[str] = (),
    *,
    acceptor: Acceptor | None = None,
    reader: Reader | None = None,
    status: StatusReader | None = None,
    explainer: Explainer | None = None,
    pauses: PauseStore | None = None,
    quiet_hours: QuietHoursStore | None = None,
    templates: TemplateStore | None = None,
    renderer: TemplateRenderer | None = None,
    access: AccessStore | None = None,
    auth: KeyAuth | None = None,
    suppressions: MemorySuppressions | None = None,
    operations: MemoryOperations | None = None,
    schedules: MemorySchedules | None = None,
    webhooks: MemoryWebhooks | None = None,
    events: EventSources | None = None,
    stats: StatsReader | None = None,
    failure_groups: FailureGroupReader | None = None,
    receipts: MemoryReceipts | None = None,
    inbox: InboxSources | None = None,
) -> Litestar:
    """The API over a store, with other ports if they are given."""
    suppressions = suppressions or MemorySuppressions()
    operations = operations or MemoryOperations(store)
    receipts = receipts or MemoryReceipts()
    return create_api(
        acceptor=acceptor or store,
        reader=reader or store,
        status=status or store,
        explainer=explainer or store,
        pauses=pauses or store,
        quiet_hours=quiet_hours or store,
        probes=store,
        features=store,
        blobs=store,
        suppressions=suppressions,
        suppressor=suppressions,
        links=suppressions,
        rules=rules,
        readiness=FakeReadiness(reasons),
        metrics=FakeMetrics(),
        access=access or MemoryAccess(),
        auth=auth,
        templates=templates or store.templates,
        renderer=renderer or InlineRenderer(),
        control=operations,
        operations=operations,
        schedules=schedules or MemorySchedules(),
        events=events,
        stats=stats or MemoryStats(),
        failure_groups=failure_groups or MemoryFailureGroups(),
        receipts=receipts,
        verifiers=receipts.verifiers,
        observer=receipts,
        webhooks=webhooks or MemoryWebhooks(),
        inbox=inbox or memory_inboxes(),
    )


@asynccontextmanager
async def open_client(app: Litestar) -> AsyncIterator[aiohttp.ClientSession]:
    """Serves the app on a free port and yields a client."""
    async with (
        open_server(app, host="127.0.0.1", port=0, grace_s=5) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


def validated(validator: SubmitValidator, body: bytes) -> NewNotification:
    """The notification of a submit that has no template."""
    new = validator.validate(body)
    assert isinstance(new, NewNotification)
    return new


def submit_body(**changes: object) -> dict[str, object]:
    """The body of a valid submit, with some fields changed."""
    body: dict[str, object] = {
        "channel": "email",
        "priority": "high",
        "recipient": "ada@example.com",
        "content": {"subject": "Your code", "body": "123456"},
    }
    return {**body, **changes}


async def get_document(
    path: str, client: aiohttp.ClientSession, parameters: Mapping[str, str], status: int = 200
) -> dict[str, Any]:
    """The document at a path of the API, whose response must have this status."""
    async with client.get(path, params=parameters) as response:
        assert response.status == status
        document: dict[str, Any] = await response.json()
        return document

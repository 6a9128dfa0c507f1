"""Gathers what is known of a notification that waits and of its queue, and explains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from notifier.delivery.publish_window import PublishWindow
from notifier.domain.allocation.entitlement import Limit
from notifier.domain.explanation.ahead import ahead_of, rows_before
from notifier.domain.explanation.explain import explain
from notifier.domain.explanation.facts import (
    Explanation,
    Facts,
    QueueFacts,
    WaitingRow,
)
from notifier.scheduling.deployment_status import reported_limitation
from notifier.scheduling.gates.permissions import Stops, stops_of
from notifier.scheduling.rates.waiter_queue import OLDEST_FIRST_EVERY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from notifier.domain.explanation.facts import QueueRules
    from notifier.domain.notification import NotificationId, QueueKey
    from notifier.ports.broker import Broker
    from notifier.ports.heartbeat import QueueFigures
    from notifier.ports.queries import View, WaitingReader
    from notifier.scheduling.cluster.cluster_figures import ClusterFigures
    from notifier.scheduling.gates.queue_gates import QueueGates


class DeploymentExplainer:
    """Implements ports.queries.Explainer. `rules` are those of the settings' queues.

    Pauses and breakers are read for each explanation, so that a change just made is seen at once.
    """

    def __init__(
        self,
        *,
        reader: WaitingReader,
        gates: QueueGates,
        cluster: ClusterFigures,
        broker: Broker,
        rules: Mapping[QueueKey, QueueRules],
    ) -> None:
        self._reader = reader
        self._gates = gates
        self._cluster = cluster
        self._broker = broker
        self._rules = rules

    async def explain(
        self,
        id: NotificationId,  # noqa: A002 the port's word
        view: View,
    ) -> Explanation | None:
        """Explain one notification. A view of one tenant gets what a tenant may see."""
        subject = await self._reader.subject(id, view)
        if subject is None:
            return None
        if not isinstance(subject, WaitingRow):
            return Explanation(subject=subject)
        return await self._explained(subject, is_for_tenant=view.tenant is not None)

    async def _explained(self, row: WaitingRow, *, is_for_tenant: bool) -> Explanation:
        controls = await self._gates.refresh()
        holds = self._gates.holds()
        providers = self._gates.providers.get(row.queue.channel, ())
        stops = stops_of(controls, row.queue, providers)
        pauses = [*stops.pauses, *holds.pauses_of(row.tenant, row.tag)]
        counts = await self._reader.count_before(row, rows_before(row))
        facts = Facts(
            row=row,
            queue=self._queue_facts(row.queue, stops),
            holds=holds,
            ahead=ahead_of(row.due_class, counts),
            authors={} if is_for_tenant else await self._reader.pause_authors(pauses),
        )
        return explain(facts, is_for_tenant=is_for_tenant)

    def _queue_facts(self, queue: QueueKey, stops: Stops) -> QueueFacts:
        rules = self._rules.get(queue)
        by_queue = self._cluster.queue_figures()
        reports = by_queue.get(queue, ())
        limit = reported_limitation(reports)
        reported_refusal = "" if limit.limited_by == Limit.BROKER else None
        return QueueFacts(
            rules=rules,
            pauses=stops.pauses,
            breakers=stops.breakers,
            refusal=self._broker.refused_queues().get(queue, reported_refusal),
            limited_by=limit.limited_by,
            limited_by_detail=limit.detail,
            workers=sum(figures.consumers > 0 for figures in reports),
            consumers=sum(figures.consumers for figures in reports),
            busy=sum(figures.busy for figures in reports),
            done_per_s=sum(figures.done_per_s for figures in reports),
            potential_per_s=None if rules is None else self._potential_per_s(queue, rules),
            may_overtake=self._may_overtake(queue, reports),
        )

    def _potential_per_s(self, queue: QueueKey, rules: QueueRules) -> float | None:
        """Return how many calls per second the present consumers of a queue can begin.

        None if no worker has measured a call. Of the provider's rate they get what its other queues
        leave, and at least what the oldest waiter gets.
        """
        by_queue = self._cluster.queue_figures()
        measured = [figures for figures in by_queue.get(queue, ()) if figures.done]
        if not measured:
            return None
        potential = sum(_potential_of(figures, rules) for figures in measured)
        rate = rules.provider_rate_per_s
        if rate is None:
            return potential
        others = sum(
            figures.done_per_s
            for other, reports in by_queue.items()
            if other != queue and rules.provider in self._gates.providers.get(other.channel, ())
            for figures in reports
        )
        return min(potential, max(rate - others, rate / OLDEST_FIRST_EVERY))

    def _may_overtake(self, queue: QueueKey, reports: Sequence[QueueFigures]) -> int:
        """Return how many rows are, or may soon be, in the broker and in the workers."""
        throughput = self._cluster.throughput().get(queue)
        window = 0 if throughput is None else PublishWindow().limit(throughput)
        return window + sum(figures.held for figures in reports)


def _potential_of(figures: QueueFigures, rules: QueueRules) -> float:
    per_consumer = 1 / figures.service_s if figures.service_s > 0 else 0.0
    if rules.consumer_rate_per_s is not None:
        per_consumer = min(per_consumer, rules.consumer_rate_per_s)
    return figures.consumers * per_consumer

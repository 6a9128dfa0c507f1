"""Which rows of a tenant are stored in turn 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from msgspec.structs import replace

from notifier.delivery import turn_choice
from notifier.delivery.turn_choice import QUEUE_ROWS, TENANT_ROWS, TENANT_ROWS_PER_S, TurnChoice
from notifier.domain.errors import FeatureUnavailable
from notifier.domain.features import TURNS as TURNS_FEATURE
from notifier.domain.notification import NewNotification
from notifier.domain.tenants import DEFAULT_TENANT, TenantId
from notifier.domain.turns import TURNS, turn_of
from tests.builders import EMAIL_LOW, a_notification
from tests.publishing import FixedCluster

A, B = TenantId("a"), TenantId("b")


@dataclass
class Deployment:
    """Tenants, workers and a clock that the test sets."""

    tenants: list[TenantId] = field(default_factory=lambda: [A, B])
    is_behind: bool = False
    now: float = 100.0
    cluster: FixedCluster = field(default_factory=FixedCluster)

    def __post_init__(self) -> None:
        self.choice = TurnChoice(
            tenants=self, features=self, cluster=self.cluster, clock=lambda: self.now
        )

    def known_tenants(self) -> Collection[TenantId]:
        return self.tenants

    def refusal(self, features: Collection[str]) -> FeatureUnavailable | None:
        assert features == {TURNS_FEATURE}
        return FeatureUnavailable(TURNS_FEATURE, "a worker is behind") if self.is_behind else None

    def first(self, items: Sequence[NewNotification]) -> int:
        """Store these rows; return how many of them were stored in turn 0."""
        return len(items) - len(self.choice.choose(items))


def rows(count: int, tenant: TenantId = A) -> list[NewNotification]:
    return [a_notification(tenant=tenant) for _ in range(count)]


def test_turns_of_tenants_are_spread_and_none_is_turn_0() -> None:
    turns = Counter(turn_of(TenantId(f"tenant-{number}")) for number in range(6300))
    assert set(turns) == set(range(1, TURNS))
    assert max(turns.values()) < 200
    assert turn_of(TenantId("shop")) == 16  # other processes and versions have the same


def test_the_first_rows_of_each_tenant_are_in_turn_0_and_the_rest_in_its_own() -> None:
    deployment = Deployment()
    items = rows(TENANT_ROWS + 30)
    turns = deployment.choice.choose(items)
    assert list(turns) == [item.id for item in items[TENANT_ROWS:]]
    assert set(turns.values()) == {turn_of(A)}
    assert deployment.first(rows(10, B)) == 10


def test_each_queue_has_its_own_credit_and_it_comes_back() -> None:
    deployment = Deployment()
    deployment.choice.choose(rows(1000))
    assert deployment.first([a_notification(EMAIL_LOW, tenant=A)]) == 1
    assert deployment.first(rows(5)) == 0
    deployment.now += 3
    assert deployment.first(rows(50)) == 3 * TENANT_ROWS_PER_S
    deployment.now += 3600
    assert deployment.first(rows(50)) == TENANT_ROWS


@pytest.mark.parametrize("tenants", [[], [A], [DEFAULT_TENANT, A]])
def test_a_deployment_with_one_tenant_uses_turn_0_only(tenants: list[TenantId]) -> None:
    deployment = Deployment(tenants)
    assert deployment.first(rows(1000)) == 1000


def test_the_default_tenant_counts_once_it_has_submitted() -> None:
    deployment = Deployment([A])
    assert deployment.first(rows(100, DEFAULT_TENANT)) == TENANT_ROWS
    assert deployment.first(rows(100)) == TENANT_ROWS
    assert Deployment([]).first(rows(100, DEFAULT_TENANT)) == 100


def test_without_keys_the_tenants_count_that_have_submitted() -> None:
    deployment = Deployment()
    choice = TurnChoice(
        tenants=None, features=deployment, cluster=deployment.cluster, clock=lambda: 0.0
    )
    assert choice.choose(rows(100)) == {}
    choice.choose(rows(1, B))
    assert len(choice.choose(rows(100))) == 100 - TENANT_ROWS


def test_what_is_published_directly_is_in_turn_0_and_costs_no_credit() -> None:
    """Its tenant counts among those that use the deployment."""
    deployment = Deployment([])
    items = rows(TENANT_ROWS)
    assert deployment.choice.choose(items, {item.id for item in items}) == {}
    other = rows(1, B)
    assert deployment.choice.choose(other, {other[0].id}) == {}
    assert deployment.first(rows(100)) == TENANT_ROWS


def test_no_other_turn_is_used_while_a_worker_is_behind() -> None:
    deployment = Deployment(is_behind=True)
    assert deployment.first(rows(1000)) == 1000
    deployment.is_behind = False
    assert deployment.first(rows(1000)) == TENANT_ROWS


def test_what_is_due_later_is_in_the_turn_of_its_tenant() -> None:
    deployment = Deployment()
    later = a_notification(tenant=A, delay=timedelta(hours=1))
    assert deployment.choice.choose([later]) == {later.id: turn_of(A)}


def test_turn_0_takes_half_of_the_throughput_and_the_first_row_of_each_tenant() -> None:
    """Whatever many tenants submit at once, one more tenant has its first row in turn 0."""
    tenants = [TenantId(f"t{number}") for number in range(1000)]
    deployment = Deployment([*tenants, A], cluster=FixedCluster(drain_per_s=400.0, apis=2))
    first = sum(deployment.first(rows(TENANT_ROWS, tenant)) for tenant in tenants)
    assert first == 1000 + QUEUE_ROWS - QUEUE_ROWS // TENANT_ROWS
    assert deployment.first(rows(TENANT_ROWS)) == 1
    deployment.now += 0.5
    assert deployment.first(rows(100, TenantId("one-more"))) == TENANT_ROWS
    spent = sum(deployment.first(rows(TENANT_ROWS, TenantId(f"u{number}"))) for number in range(9))
    # 0.5 s of 100 rows a second for the first two, and one row of each other.
    assert spent == 50 - TENANT_ROWS + 7


def test_suppressed_rows_have_no_turn() -> None:
    suppressed = replace(a_notification(tenant=A), suppressed="manual")
    assert Deployment().choice.choose([*rows(TENANT_ROWS), suppressed]) == {}


def test_the_credits_in_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_choice, "MAX_CREDITS", 3)
    deployment = Deployment()
    for number in range(10):
        deployment.choice.choose(rows(1000, TenantId(f"t{number}")))
    assert len(deployment.choice._credits) <= 3

"""The metrics: every report of the core is exposed, and the number of series is bounded."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from notifier.adapters.postgres.store import MAX_COUNTED_DUE, MAX_SHOWN_DUE
from notifier.adapters.telemetry.metrics import Metrics
from notifier.adapters.telemetry.notification_metrics import OUTCOME_NAMES
from notifier.adapters.telemetry.series import Distributions
from notifier.domain.allocation.entitlement import Limit
from notifier.domain.notification import FINAL, Channel, Priority, QueueKey, Status
from notifier.ports.observer import Observer, RescueReason

CHANNELS = (Channel("email"), Channel("sms"))
QUEUES = [QueueKey(channel, priority) for channel in CHANNELS for priority in Priority]
HIGH = QUEUES[0]
NAME = str(HIGH)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    providers = {Channel("email"): ["smtp", "backup"], Channel("sms"): ["sms"]}
    return Metrics(
        QUEUES,
        providers,
        version="1.2.3",
        target_wait_s={Priority.HIGH: 1.0, Priority.LOW: 60.0},
        registry=registry,
    )


def value(metrics: Metrics, name: str, **labels: str) -> float:
    sample = metrics.registry.get_sample_value(f"notifier_{name}", labels)
    assert sample is not None, f"no series {name} {labels}"
    return sample


def series(metrics: Metrics) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {
        (sample.name, frozenset(sample.labels.items()))
        for family in metrics.registry.collect()
        for sample in family.samples
    }


def exercise(observer: Observer, queue: QueueKey, provider: str, word: str) -> None:
    observer.accepted(queue, 1)
    observer.submit_committed(0.1)
    observer.published(queue, 1)
    observer.claimed(queue, 0.1)
    observer.attempted(queue, provider, word, word, 0.1)
    observer.copies_refused(queue, 1)
    observer.retried(queue, word)
    observer.finished(queue, Status.SENT, 1.0)
    observer.rescued(queue, 1, RescueReason.MESSAGE_LOST)
    observer.released(queue, 1)
    observer.consumers_moved(queue, 1)
    observer.message_unreadable()
    observer.queue_measured(queue, ready=1, due=1, oldest_wait_s=1.0)
    observer.consumers_measured(queue, consumers=1, busy=1, limited_by=word)
    observer.provider_hanging(queue.channel, is_hanging=True)
    observer.workers_counted(2)
    observer.workers_behind(1)
    observer.processes_died(1)
    observer.leases_held(1)
    observer.dependency_answered(provider, 0.1)
    observer.dependency_unavailable(provider)
    observer.loop_lagged(0.1)
    observer.waiting_counted(1, limit=2)
    observer.partitions_kept(1)
    observer.lost_counted(0)
    observer.breaker_changed(provider, "open", "errors")
    observer.breaker_opened(provider, word)
    observer.provider_rate_changed(provider, 5.0)
    observer.provider_connections_changed(provider, 7)


def test_counts_of_notifications_are_by_queue(metrics: Metrics) -> None:
    metrics.accepted(HIGH, 3)
    metrics.published(HIGH, 2)
    metrics.rescued(HIGH, 4, RescueReason.MESSAGE_LOST)
    metrics.rescued(HIGH, 3, RescueReason.PROCESS_DIED)
    metrics.released(HIGH, 5)
    metrics.consumers_moved(HIGH, 6)
    metrics.message_unreadable()

    assert value(metrics, "accepted_total", queue=NAME) == 3
    assert value(metrics, "published_total", queue=NAME) == 2
    assert value(metrics, "rescues_total", queue=NAME, reason="message_lost") == 4
    assert value(metrics, "rescues_total", queue=NAME, reason="process_died") == 3
    assert value(metrics, "released_total", queue=NAME) == 5
    assert value(metrics, "consumer_moves_total", queue=NAME) == 6
    assert value(metrics, "unreadable_messages_total") == 1
    assert value(metrics, "accepted_total", queue="sms.low") == 0


@pytest.mark.parametrize("outcome", OUTCOME_NAMES)
def test_an_attempt_is_counted_by_outcome_and_its_duration_observed(
    metrics: Metrics, outcome: str
) -> None:
    metrics.attempted(HIGH, "smtp", outcome, "", 0.02)

    labels = {"queue": NAME, "provider": "smtp"}
    assert value(metrics, "attempts_total", **labels, outcome=outcome) == 1
    assert value(metrics, "attempt_seconds_count", **labels) == 1
    assert value(metrics, "attempt_seconds_sum", **labels) == pytest.approx(0.02)
    assert value(metrics, "attempt_seconds_bucket", **labels, le="0.01") == 0
    assert value(metrics, "attempt_seconds_bucket", **labels, le="0.025") == 1


def test_a_retry_shows_by_its_reason(metrics: Metrics) -> None:
    metrics.retried(HIGH, "throttled")
    assert value(metrics, "retries_total", queue=NAME, reason="throttled") == 1


@pytest.mark.parametrize("status", sorted(FINAL))
def test_a_final_status_shows_and_only_sent_is_timed(metrics: Metrics, status: Status) -> None:
    metrics.finished(HIGH, status, 7.0)

    assert value(metrics, "finished_total", queue=NAME, status=status) == 1
    is_sent = status is Status.SENT
    assert value(metrics, "end_to_end_seconds_count", queue=NAME) == is_sent


@pytest.mark.parametrize("status", sorted(set(Status) - FINAL))
def test_a_status_that_is_not_final_has_no_series_of_its_own(
    metrics: Metrics, status: Status
) -> None:
    metrics.finished(HIGH, status, 7.0)

    labels = {"queue": NAME, "status": status.value}
    assert metrics.registry.get_sample_value("notifier_finished_total", labels) is None
    assert value(metrics, "finished_total", queue="other", status="other") == 1


def test_wait_buckets_range_from_milliseconds_to_an_hour(metrics: Metrics) -> None:
    metrics.claimed(HIGH, 0.0005)
    metrics.claimed(HIGH, 3000.0)
    metrics.submit_committed(0.004)

    assert value(metrics, "queue_wait_seconds_bucket", queue=NAME, le="0.005") == 1
    assert value(metrics, "queue_wait_seconds_bucket", queue=NAME, le="900.0") == 1
    assert value(metrics, "queue_wait_seconds_bucket", queue=NAME, le="3600.0") == 2
    assert value(metrics, "accept_seconds_bucket", le="0.005") == 1


def test_a_wait_above_the_target_counts_as_claimed_late(metrics: Metrics) -> None:
    metrics.claimed(HIGH, 1.0)
    metrics.claimed(HIGH, 1.1)
    metrics.claimed(QUEUES[1], 3000.0)  # has no target

    assert value(metrics, "target_wait_seconds", queue=NAME) == 1.0
    assert value(metrics, "claimed_late_total", queue=NAME) == 1
    assert value(metrics, "claimed_late_total", queue=str(QUEUES[1])) == 0


def test_a_failure_is_counted_by_channel_and_reason(metrics: Metrics) -> None:
    metrics.finished(HIGH, Status.FAILED, 1.0, "refused")
    metrics.finished(QUEUES[1], Status.FAILED, 1.0, "refused")
    metrics.finished(HIGH, Status.SENT, 1.0)

    assert value(metrics, "failures_total", channel="email", reason="refused") == 2
    assert value(metrics, "failures_total", channel="email", reason="poison") == 0


def test_responses_are_counted_by_the_first_codes_of_a_provider(metrics: Metrics) -> None:
    for number in range(30):
        metrics.attempted(HIGH, "smtp", "refused", f"code {number}", 0.1)
    metrics.attempted(HIGH, "smtp", "refused", "code 0", 0.1)
    metrics.attempted(HIGH, "backup", "accepted", "", 0.1)

    assert value(metrics, "provider_responses_total", provider="smtp", code="code 0") == 2
    assert value(metrics, "provider_responses_total", provider="smtp", code="other") == 20
    assert value(metrics, "provider_responses_total", provider="backup", code="accepted") == 1


def test_a_dependency_is_up_until_it_does_not_answer(metrics: Metrics) -> None:
    labels = {"dependency": "rabbitmq"}
    assert value(metrics, "dependency_up", **labels) == 0
    metrics.dependency_answered("rabbitmq", 0.02)
    assert value(metrics, "dependency_up", **labels) == 1
    assert value(metrics, "round_trip_seconds_count", **labels) == 1
    metrics.dependency_unavailable("rabbitmq")
    assert value(metrics, "dependency_up", **labels) == 0


def test_the_figures_of_a_process_are_exposed(metrics: Metrics) -> None:
    metrics.provider_hanging(Channel("sms"), is_hanging=True)
    metrics.workers_counted(3)
    metrics.processes_died(2)
    metrics.leases_held(5)
    metrics.loop_lagged(0.3)
    metrics.waiting_counted(70, limit=100)
    metrics.partitions_kept(1)
    metrics.lost_counted(4)

    assert value(metrics, "provider_hanging", channel="sms") == 1
    assert value(metrics, "provider_hanging", channel="email") == 0
    assert value(metrics, "workers") == 3
    assert value(metrics, "leases") == 5
    assert value(metrics, "processes_died_total") == 2
    assert value(metrics, "loop_lag_seconds_bucket", le="0.25") == 0
    assert value(metrics, "loop_lag_seconds_bucket", le="1.0") == 1
    assert value(metrics, "waiting") == 70
    assert value(metrics, "waiting_limit") == 100
    assert value(metrics, "partitions_kept") == 1
    assert value(metrics, "lost") == 4


def test_the_default_queues_have_below_1300_series_at_any_responses() -> None:
    channels = {Channel("email"): ["smtp"], Channel("sms"): ["twilio"], Channel("push"): ["fcm"]}
    queues = [QueueKey(channel, priority) for channel in channels for priority in Priority]
    channels[Channel("webhook")] = ["webhook"]
    queues.append(QueueKey(Channel("webhook"), Priority.MEDIUM))
    metrics = Metrics(queues, channels, version="1", target_wait_s=dict.fromkeys(Priority, 1.0))
    for queue in [*queues, QueueKey(Channel("fax"), Priority.LOW)]:
        for number in range(1000):
            (provider,) = channels.get(queue.channel, ["none"])
            exercise(metrics, queue, provider, f"word {number}")

    assert len(series(metrics)) < 1300


def test_gauges_hold_the_last_measurement(metrics: Metrics) -> None:
    metrics.queue_measured(HIGH, ready=9, due=9, oldest_wait_s=9.0)
    metrics.queue_measured(HIGH, ready=5, due=6, oldest_wait_s=7.5)
    metrics.consumers_measured(HIGH, consumers=8, busy=3, limited_by=Limit.NEED)

    assert value(metrics, "ready", queue=NAME) == 5
    assert value(metrics, "due", queue=NAME) == 6
    assert value(metrics, "oldest_due_seconds", queue=NAME) == 7.5
    assert value(metrics, "consumers", queue=NAME) == 8
    assert value(metrics, "consumers_busy", queue=NAME) == 3


def test_the_help_of_the_due_rows_says_where_the_metric_and_the_api_stop_counting(
    metrics: Metrics,
) -> None:
    (help_text,) = (
        family.documentation
        for family in metrics.registry.collect()
        if family.name == "notifier_due"
    )
    numbers = re.findall(r"\b[0-9,]+[0-9]", help_text)
    assert numbers == [f"{MAX_COUNTED_DUE:,}", f"{MAX_SHOWN_DUE:,}"]


def test_one_reason_at_a_time_limits_a_queue(metrics: Metrics) -> None:
    for limit in (Limit.NEED, Limit.RATE, Limit.RATE, Limit.CONSUMERS):
        metrics.consumers_measured(HIGH, consumers=1, busy=1, limited_by=limit)
        shown = {
            reason: value(metrics, "limited_by", queue=NAME, reason=reason) for reason in Limit
        }
        assert shown == {reason: float(reason is limit) for reason in Limit}


def test_the_version_is_exposed(metrics: Metrics) -> None:
    assert value(metrics, "build_info", version="1.2.3") == 1


def test_known_labels_create_no_new_series(metrics: Metrics) -> None:
    before = series(metrics)
    for queue in QUEUES:
        for provider in ["smtp", "backup"] if queue.channel == "email" else ["sms"]:
            exercise(metrics, queue, provider, "unavailable")
        metrics.consumers_measured(queue, consumers=1, busy=1, limited_by=Limit.PAUSE)
    added = {name for name, labels in series(metrics) - before}
    # "unavailable" is not a limit, an opening reason or a dependency: it counts as `other`.
    # Codes are chosen by the provider and get series as they come.
    assert added == {
        "notifier_limited_by",
        "notifier_breaker_openings_total",
        "notifier_provider_responses_total",
        "notifier_dependency_up",
        "notifier_round_trip_seconds_bucket",
        "notifier_round_trip_seconds_count",
        "notifier_round_trip_seconds_sum",
    }


def test_unknown_labels_share_one_series(metrics: Metrics) -> None:
    exercise(metrics, QueueKey(Channel("fax"), Priority.LOW), "x", "y")
    once = series(metrics)
    for number in range(50):
        stranger = QueueKey(Channel(f"fax-{number}"), Priority.LOW)
        exercise(metrics, stranger, f"x{number}", f"y{number}")

    assert series(metrics) == once
    assert value(metrics, "accepted_total", queue="other") == 51


def test_every_metric_has_the_prefix_notifier_or_process(metrics: Metrics) -> None:
    names = {name for name, _ in series(metrics)}
    assert all(name.startswith(("notifier_", "process_")) for name in names)
    assert not any(name.endswith("_created") for name in names)


def test_two_instances_do_not_share_a_registry() -> None:
    first, second = (Metrics(QUEUES, {}, version="1") for _ in range(2))
    first.accepted(HIGH, 1)
    assert value(second, "accepted_total", queue=NAME) == 0


def test_rendered_text_has_the_format_of_prometheus(metrics: Metrics) -> None:
    metrics.accepted(HIGH, 3)
    body, content_type = metrics.render()
    assert b'notifier_accepted_total{queue="email.high"} 3.0' in body
    assert content_type.startswith("text/plain")


@given(st.lists(st.floats(0, 100) | st.sampled_from([0.1, 1.0, 5.0])))
def test_a_distribution_is_scraped_like_a_histogram_of_the_library(values: list[float]) -> None:
    bounds = (0.1, 1.0, 5.0)
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    distributions = Distributions("wait_seconds", "A wait.", ["queue"], bounds)
    ours.register(distributions)
    histogram = Histogram("wait_seconds", "A wait.", ["queue"], registry=theirs, buckets=bounds)
    for queue in ("a", "b"):
        own, library = distributions.labels(queue), histogram.labels(queue)
        for value in values:
            own.observe(value)
            library.observe(value)
    assert generate_latest(ours) == generate_latest(theirs)


def many_channels(count: int) -> Metrics:
    channels = [Channel(f"c{number:03}") for number in range(count)]
    return Metrics(
        [QueueKey(channel, priority) for channel in channels for priority in Priority],
        {channel: [f"p{number % 3}"] for number, channel in enumerate(channels)},
        version="1.2.3",
        target_wait_s=dict.fromkeys(Priority, 1.0),
        registry=CollectorRegistry(),
    )


def test_the_channels_after_the_first_sixteen_share_their_series() -> None:
    metrics = many_channels(100)
    own, shared = (QueueKey(Channel(name), Priority.HIGH) for name in ("c015", "c016"))
    last = QueueKey(Channel("c099"), Priority.HIGH)
    for queue in (own, shared, last):
        metrics.accepted(queue, 1)
        metrics.attempted(queue, "p0", "accepted", "", 0.1)
        metrics.queue_measured(queue, ready=2, due=3, oldest_wait_s=len(queue.channel))
        metrics.consumers_measured(queue, consumers=4, busy=1, limited_by="need")
    metrics.queue_measured(last, ready=5, due=0, oldest_wait_s=9.0)
    metrics.provider_hanging(last.channel, is_hanging=True)

    assert value(metrics, "accepted_total", queue="c015.high") == 1
    assert value(metrics, "accepted_total", queue="other.high") == 2
    labels = {"queue": "other.high", "provider": "other", "outcome": "accepted"}
    assert value(metrics, "attempts_total", **labels) == 1
    assert value(metrics, "ready", queue="other.high") == 2 + 5
    assert value(metrics, "due", queue="other.high") == 3
    assert value(metrics, "oldest_due_seconds", queue="other.high") == 9.0
    assert value(metrics, "consumers", queue="other.high") == 8
    assert value(metrics, "provider_hanging", channel="other") == 1
    assert not any("c016" in str(labels) for _, labels in series(metrics))


def test_a_hundred_channels_have_as_many_series_as_seventeen() -> None:
    assert series(many_channels(100)) == series(many_channels(17))
    assert len(series(many_channels(100))) < 6_000

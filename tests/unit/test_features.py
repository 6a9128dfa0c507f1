"""What a worker of an earlier version does not understand, and what is refused while it runs."""

from __future__ import annotations

import json

import msgspec
import pytest
from structlog.testing import capture_logs

from notifier.adapters.telemetry.metrics import Metrics
from notifier.api.requests import Content
from notifier.api.submission.email_fields import RECIPIENT_NAME
from notifier.api.submission.validation import SubmitValidator
from notifier.delivery.templates import TemplatedContent
from notifier.domain.features import (
    ALL_FEATURES,
    ERASURE,
    FEATURES,
    HOLDS,
    NO_FEATURES,
    PLAIN_PARTS,
    SUPPRESSED_COPIES,
    TURNS,
    WEBHOOK_EVENT,
    features_of,
)
from notifier.domain.holds import TIME_ZONE
from notifier.domain.notification import NewNotification
from notifier.ports.heartbeat import WorkerFigures
from notifier.scheduling.cluster.worker_features import WorkerFeatures
from tests.builders import worker_id
from tests.unit.fakes_api import DEFAULT_RULES, submit_body, validated

VALIDATOR = SubmitValidator(DEFAULT_RULES)
FILE = {"filename": "a.txt", "content_type": "text/plain", "data": "YQ=="}


def validate(**changes: object) -> NewNotification:
    return validated(VALIDATOR, json.dumps(submit_body(**changes)).encode())


def a_row(
    features: frozenset[str] = NO_FEATURES, *, kind: str = "worker", age_s: float = 0.5
) -> WorkerFigures:
    return WorkerFigures(
        id=worker_id(),
        kind=kind,
        host="node-1",
        pid=17,
        beat=1,
        age_s=age_s,
        queues={},
        providers={},
        version="0.1.0",
        features=features,
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics((), {}, version="0")


@pytest.fixture
def workers(metrics: Metrics) -> WorkerFeatures:
    return WorkerFeatures(metrics)


def test_every_part_that_is_stored_is_plain_or_needs_a_feature() -> None:
    """Who adds a part adds it to FEATURES: workers of the version before would leave it out."""
    parts = {field.encode_name for field in msgspec.structs.fields(Content)}
    parts |= {RECIPIENT_NAME, TIME_ZONE, SUPPRESSED_COPIES, *TemplatedContent.__struct_fields__}
    parts.add(WEBHOOK_EVENT)
    assert parts == PLAIN_PARTS.union(*FEATURES.values())
    assert features_of(parts) == ALL_FEATURES - {HOLDS, TURNS, ERASURE}


@pytest.mark.parametrize(
    ("part", "feature"),
    [
        ({"from": "shop@example.com"}, "sender"),
        ({"reply_to": "shop@example.com"}, "sender"),
        ({"cc": "eve@example.com"}, "copies"),
        ({"bcc": ["eve@example.com"]}, "copies"),
        ({"headers": {"X-Order": "7"}}, "headers"),
        ({"attachments": [FILE]}, "attachments"),
    ],
)
def test_a_submit_needs_the_features_of_its_parts(part: dict[str, object], feature: str) -> None:
    content = {"subject": "s", "html": "h", "data": {}, **part}
    assert validate(content=content).features == {feature}


def test_a_submit_with_a_time_zone_needs_a_feature() -> None:
    assert validate(time_zone="Europe/Berlin").features == {"time_zone"}


def test_a_plain_submit_needs_none() -> None:
    content = {"subject": "s", "body": "b", "html": "h", "data": {}}
    assert validate(content=content).features == NO_FEATURES
    given_but_empty: dict[str, object] = {"cc": [], "bcc": None, "headers": {}, "attachments": []}
    assert validate(content={**content, **given_but_empty}).features == NO_FEATURES


def test_a_name_of_the_recipient_and_the_sender_of_a_text_message_need_one() -> None:
    assert validate(recipient="Ada <ada@example.com>").features == {"recipient_name"}
    sms = {"channel": "sms", "recipient": "+15005550006"}
    assert validate(**sms, content={"body": "b", "from": "Shop"}).features == {"sender"}


def test_what_a_worker_lacks_is_refused_until_it_has_left(workers: WorkerFeatures) -> None:
    workers.beat_succeeded([a_row(ALL_FEATURES), a_row(frozenset({"copies"}))])
    assert workers.refusal({"copies"}) is None
    refusal = workers.refusal({"copies", "headers"})
    assert refusal is not None
    assert refusal.feature == "headers"
    assert "node-1 with pid 17 (0.1.0)" in str(refusal)
    workers.beat_succeeded([a_row(ALL_FEATURES)])
    assert workers.refusal(ALL_FEATURES) is None


def test_features_of_a_later_version_are_no_matter(workers: WorkerFeatures) -> None:
    workers.beat_succeeded([a_row(ALL_FEATURES | {"telepathy"})])
    assert workers.refusal(ALL_FEATURES) is None


def test_everything_is_accepted_while_no_worker_lives(workers: WorkerFeatures) -> None:
    workers.beat_succeeded([])
    assert workers.refusal(ALL_FEATURES) is None


def test_nothing_is_known_before_the_first_heartbeat(workers: WorkerFeatures) -> None:
    assert workers.refusal({"copies"}) is not None


def test_an_api_need_not_understand_what_it_does_not_send(workers: WorkerFeatures) -> None:
    workers.beat_succeeded([a_row(kind="api")])
    assert workers.refusal(ALL_FEATURES) is None
    workers.beat_succeeded([a_row(kind="dev")])
    assert workers.refusal(ALL_FEATURES) is not None


def test_a_worker_that_died_counts_for_a_minute(workers: WorkerFeatures) -> None:
    workers.beat_succeeded([a_row(age_s=59.9)])
    assert workers.refusal({"copies"}) is not None
    workers.beat_succeeded([a_row(age_s=60.1)])
    assert workers.refusal({"copies"}) is None


def test_a_worker_that_is_behind_is_logged_once_and_counted(
    workers: WorkerFeatures, metrics: Metrics
) -> None:
    row = a_row(ALL_FEATURES - {"copies"})
    with capture_logs() as logs:
        workers.beat_succeeded([row])
        workers.beat_succeeded([row, a_row(ALL_FEATURES)])
    assert [(entry["event"], entry["lacks"]) for entry in logs] == [("worker_behind", ["copies"])]
    assert metrics.registry.get_sample_value("notifier_workers_behind") == 1
    workers.beat_succeeded([])
    assert metrics.registry.get_sample_value("notifier_workers_behind") == 0

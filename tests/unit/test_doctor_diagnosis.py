"""The findings of `notifier doctor` for servers that the tests cannot start."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from notifier.adapters.postgres import diagnosis as postgres
from notifier.adapters.postgres.access import FUNCTIONS, TABLES
from notifier.adapters.providers.http.checkup import address_of
from notifier.adapters.rabbitmq import diagnosis as rabbitmq
from notifier.domain.finding import CheckStatus, not_checked, ok

DEPLOY_GUIDE = (Path(__file__).parents[2] / "docs/deploy.md").read_text()
SERVER = postgres.Server(
    major=15,
    version="15.4",
    is_read_only=False,
    synchronous_commit="on",
    role="app",
    connections=97,
    others=0,
)


def test_doctor_checks_exactly_the_privileges_that_the_deploy_guide_grants() -> None:
    granted = ", ".join(
        re.findall(r"^GRANT .* ON (?:FUNCTION )?(.*) TO app;", DEPLOY_GUIDE, re.MULTILINE)
    )
    assert set(granted.split(", ")) == {*TABLES, *FUNCTIONS, "alembic_version"}


def test_the_deploy_guide_states_the_connections_that_doctor_counts() -> None:
    told = re.search(
        r"API process holds up to (\d+) connections to Postgres, a worker (\d+)", DEPLOY_GUIDE
    )
    assert told is not None
    assert (postgres.CONNECTIONS_BY_KIND["api"], postgres.CONNECTIONS_BY_KIND["worker"]) == (
        int(told[1]),
        int(told[2]),
    )


@pytest.mark.parametrize(
    ("major", "status"), [(14, CheckStatus.WRONG), (15, CheckStatus.OK), (18, CheckStatus.OK)]
)
def test_a_postgres_before_15_is_too_old(major: int, status: CheckStatus) -> None:
    assert postgres.of_version(replace(SERVER, major=major)).status is status


@pytest.mark.parametrize(
    ("version", "status"),
    [("3.9.29", CheckStatus.WRONG), ("3.10.0", CheckStatus.OK), ("4.1.0-rc.1", CheckStatus.OK)],
)
def test_a_rabbitmq_before_3_10_is_too_old(version: str, status: CheckStatus) -> None:
    found = rabbitmq.of_version({"product": "RabbitMQ", "version": version})
    assert found.status is status


def test_a_broker_that_is_not_rabbitmq_is_a_warning() -> None:
    found = rabbitmq.of_version({"product": "LavinMQ", "version": "2.0.0"})
    assert (found.status, "LavinMQ 2.0.0" in found.finding) == (CheckStatus.WARNING, True)


@pytest.mark.parametrize(
    ("skew_s", "status"), [(4.9, CheckStatus.OK), (-4.9, CheckStatus.OK), (5.1, CheckStatus.WRONG)]
)
def test_a_clock_may_differ_by_5_s(skew_s: float, status: CheckStatus) -> None:
    assert postgres.of_clock(skew_s).status is status


def test_the_fix_has_one_grant_per_object_and_quotes_the_role() -> None:
    missing = [
        postgres.MissingRight(is_function=False, name="pauses", missing="DELETE"),
        postgres.MissingRight(is_function=False, name="pauses", missing="INSERT"),
        postgres.MissingRight(is_function=True, name="drop_day(date)", missing="EXECUTE"),
    ]
    assert postgres.of_rights(missing, 'my "app"').fix == (
        'GRANT DELETE, INSERT ON pauses TO "my ""app"""; '
        'GRANT EXECUTE ON FUNCTION drop_day(date) TO "my ""app"""'
    )


@pytest.mark.parametrize(
    ("spare", "status"),
    [(0, CheckStatus.OK), (-1, CheckStatus.WARNING)],
)
def test_connections_used_by_other_programs_are_a_warning(spare: int, status: CheckStatus) -> None:
    needed = postgres.CONNECTIONS_BY_KIND["api"] + postgres.CONNECTIONS_BY_KIND["worker"]
    others = SERVER.connections - needed - spare
    found = postgres.of_connections(replace(SERVER, others=others), {})
    assert found.status is status


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://a.example", "a.example:80"),
        ("https://a.example/v1/{{ recipient }}", "a.example:443"),
        ("https://key:secret@a.example:8443?to={{ recipient }}", "a.example:8443"),
        ("http://[::1]:8025/x", "[::1]:8025"),
        ("https://a.example:x/", None),
        ("{{ content.data.url }}", None),
        ("https://{{ recipient }}.example/", None),
        ("https://a.example{{ path }}", None),
    ],
)
def test_a_url_names_its_host_unless_the_notification_does(url: str, place: str | None) -> None:
    found = address_of(url)
    assert (str(found) if found else None) == place


@pytest.mark.parametrize(
    ("left_s", "are_asked", "status", "says"),
    [
        ({}, True, CheckStatus.WARNING, "no key holds"),
        ({"8Rk2vQ0ZpLx1": None}, True, CheckStatus.OK, "1 hold"),
        ({"a": None, "b": 3 * 86_400.0}, True, CheckStatus.WARNING, "about to expire: b in 3 d"),
        ({"a": 8 * 86_400.0}, True, CheckStatus.OK, "1 hold"),
        ({}, False, CheckStatus.OK, "whoever reaches the API"),
    ],
)
def test_without_a_key_that_holds_the_fix_is_the_command_that_makes_one(
    left_s: dict[str, float | None], are_asked: bool, status: CheckStatus, says: str
) -> None:
    found = postgres.of_keys(left_s, are_asked=are_asked)
    assert (found.status, says in found.finding) == (status, True)
    assert ("notifier keys create" in found.fix) is (status is CheckStatus.WARNING)


@pytest.mark.parametrize(
    ("count", "refused", "late", "status", "says"),
    [
        (0, [], [], CheckStatus.OK, "none"),
        (3, [], [], CheckStatus.OK, "3 schedules"),
        (3, ["a", "b"], ["c"], CheckStatus.WARNING, "refused of a, b"),
        (3, [], ["c"], CheckStatus.WARNING, "nothing runs c"),
        (20, list("abcdefghijklm"), [], CheckStatus.WARNING, "i, j and 3 more"),
    ],
)
def test_schedules_that_were_refused_or_that_nothing_runs_are_named(
    count: int, refused: list[str], late: list[str], status: CheckStatus, says: str
) -> None:
    found = postgres.of_schedules(count, refused, late)
    assert (found.status, says in found.finding) == (status, True)
    assert ("notifier" in found.fix) is (status is CheckStatus.WARNING)


@pytest.mark.parametrize(
    ("count", "status", "says"),
    [
        (0, CheckStatus.OK, "all"),
        (12, CheckStatus.WARNING, "12 receipts of ses, twilio"),
        (10_000, CheckStatus.WARNING, "10,000 or more"),
    ],
)
def test_receipts_without_notifications_are_named(
    count: int, status: CheckStatus, says: str
) -> None:
    found = postgres.of_receipts(count, ["ses", "twilio"])
    assert (found.status, says in found.finding) == (status, True)
    assert ("lookups.reference" in found.fix) is (status is CheckStatus.WARNING)


def test_a_finding_is_one_line() -> None:
    assert ok("x", "two\n  lines").finding == "two lines"
    assert not_checked("x", "that\nis away").finding == "not checked: that is away"

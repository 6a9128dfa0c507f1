"""The alert rules: each asks for what there is, and has a page that says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml  # type: ignore[import-untyped]

from tests.promql import exposed

ROOT = Path(__file__).resolve().parents[2]
RUNBOOK = ROOT / "docs/runbook"
RULES = ROOT / "deploy/prometheus/rules/notifier.yml"
TESTS = ROOT / "deploy/prometheus/tests/notifier.yml"

Json = dict[str, Any]


def rules() -> list[Json]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
EACH_RULE = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert", "record"))
EACH_ALERT = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


@EACH_RULE
def test_a_rule_can_be_read_and_asks_for_metrics_that_are_exposed(rule: Json) -> None:
    promql.parse(rule["expr"])
    words = set(re.findall(r"[a-z_:]*notifier_[a-z0-9_:]+", rule["expr"]))
    assert words or "up{" in rule["expr"]
    assert words <= RECORDED | exposed().keys() | {"notifier_api"}


@EACH_ALERT
def test_an_alert_wakes_somebody_or_writes_a_ticket_and_says_what_is_wrong(alert: Json) -> None:
    assert re.findall(r"page|ticket", alert["labels"]["severity"])
    assert alert["annotations"]["summary"].endswith((".", "}}."))


@EACH_ALERT
def test_an_alert_has_a_page_that_is_named_after_it(alert: Json) -> None:
    page = ROOT / alert["annotations"]["runbook"]
    title, *_ = page.read_text().splitlines()
    assert alert["alert"] in title
    for part in ("**It means**", "**Look.**", "**Do.**"):
        assert part in page.read_text() or "| do |" in page.read_text()
    assert f"| {alert['alert']} |" in (RUNBOOK / "README.md").read_text()


def test_every_page_belongs_to_an_alert() -> None:
    pages = {Path(alert["annotations"]["runbook"]).name for alert in ALERTS}
    assert {page.name for page in RUNBOOK.iterdir()} == pages | {"README.md"}


@EACH_ALERT
def test_an_alert_is_shown_to_fire_and_to_be_silent(alert: Json) -> None:
    cases = [
        case
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert["alert"]
    ]
    assert any(case["exp_alerts"] for case in cases)

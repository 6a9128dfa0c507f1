"""The alert rules: each reads exposed metrics and has a page in the runbook."""

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
def test_a_rule_parses_and_reads_only_exposed_metrics(rule: Json) -> None:
    promql.parse(rule["expr"])
    names = set(re.findall(r"[a-z_:]*notifier_[a-z0-9_:]+", rule["expr"]))
    assert names or "up{" in rule["expr"]
    assert names <= RECORDED | exposed().keys() | {"notifier_api"}


@EACH_ALERT
def test_an_alert_has_a_severity_and_a_summary(alert: Json) -> None:
    assert re.findall(r"page|ticket", alert["labels"]["severity"])
    assert alert["annotations"]["summary"].endswith((".", "}}."))


@EACH_ALERT
def test_an_alert_has_a_runbook_page_with_its_name(alert: Json) -> None:
    page = ROOT / alert["annotations"]["runbook"]
    title, *_ = page.read_text().splitlines()
    assert alert["alert"] in title
    for part in ("**Meaning.**", "**Check.**", "**Fix.**"):
        assert part in page.read_text() or "| fix |" in page.read_text()
    assert f"| {alert['alert']} |" in (RUNBOOK / "README.md").read_text()


def test_every_runbook_page_belongs_to_an_alert() -> None:
    pages = {Path(alert["annotations"]["runbook"]).name for alert in ALERTS}
    assert {page.name for page in RUNBOOK.iterdir()} == pages | {"README.md"}


@EACH_ALERT
def test_an_alert_has_a_test_in_which_it_fires(alert: Json) -> None:
    cases = [
        case
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert["alert"]
    ]
    assert any(case["exp_alerts"] for case in cases)

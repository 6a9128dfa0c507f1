"""Checks PromQL against the exposed metrics: names, labels, label values, and allowed sums."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import promql_parser as promql
from prometheus_client.parser import text_string_to_metric_families

from notifier.adapters.telemetry.metrics import Metrics
from notifier.domain.notification import Channel, Priority, QueueKey

TARGET: Final = frozenset({"job", "instance"})
"""The labels that Prometheus adds to every scraped series."""

OVER_TIME: Final = frozenset({"rate", "increase"})
DEPLOYMENT: Final = frozenset(
    {
        "notifier_ready",
        "notifier_due",
        "notifier_oldest_due_seconds",
        "notifier_target_wait_seconds",
        "notifier_waiting",
        "notifier_waiting_limit",
        "notifier_workers",
        "notifier_workers_behind",
        "notifier_breaker",
        "notifier_provider_rate_per_second",
        "notifier_processes_died_total",
        "notifier_lost",
        "notifier_partitions_kept",
    }
)
"""Figures that every process reports alike: a sum over processes would count them many times."""

Labels = frozenset[str]


@dataclass(slots=True)
class Exposed:
    """The samples of one name: whether they only grow, and the values of their labels."""

    grows: bool
    values: dict[str, set[str]] = field(default_factory=dict)


def exposed() -> Mapping[str, Exposed]:
    """Return the samples that a process with the default channels exposes, by name."""
    senders = {"email": "smtp", "sms": "twilio", "push": "fcm"}
    queues = [QueueKey(Channel(channel), priority) for channel in senders for priority in Priority]
    metrics = Metrics(
        queues,
        {Channel(channel): [provider] for channel, provider in senders.items()},
        version="1.2.3",
        target_wait_s=dict.fromkeys(Priority, 1.0),
    )
    metrics.attempted(queues[0], "smtp", "accepted", "250", 0.1)
    body, _ = metrics.render()
    samples: dict[str, Exposed] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            exposed = samples.setdefault(
                sample.name, Exposed(family.type in {"counter", "histogram"})
            )
            for label, value in sample.labels.items():
                exposed.values.setdefault(label, set()).add(value)
    return samples


def labels_of(expr: promql.Expr, known: Mapping[str, Exposed]) -> Labels:
    """Return the labels of the result. Raises AssertionError with the reason for a wrong query."""
    match expr:
        case promql.VectorSelector():
            assert not _metric(expr, known).grows, f"{expr.name} only grows: take its rate"
            return _selected(expr, known)
        case promql.AggregateExpr():
            return _aggregated(expr, known)
        case promql.BinaryExpr():
            return _combined(expr, known)
        case promql.Call():
            return _called(expr, known)
        case promql.ParenExpr() | promql.UnaryExpr():
            return labels_of(expr.expr, known)
        case promql.NumberLiteral() | promql.StringLiteral():
            return frozenset()
        case _:
            raise AssertionError(f"these tests cannot check: {expr.prettify()}")


def _selected(selector: promql.VectorSelector, known: Mapping[str, Exposed]) -> Labels:
    values = _metric(selector, known).values
    for matcher in selector.matchers.matchers:
        assert matcher.name in values, f"{selector.name} has no label {matcher.name}"
        is_regex = matcher.op in (promql.MatchOp.Re, promql.MatchOp.NotRe)
        pattern = matcher.value if is_regex else re.escape(matcher.value)
        assert any(re.fullmatch(pattern, value) for value in values[matcher.name]), (
            f"{selector.name} has no {matcher}"
        )
    return frozenset(values) | TARGET


def _aggregated(expr: promql.AggregateExpr, known: Mapping[str, Exposed]) -> Labels:
    inner = labels_of(expr.expr, known)
    if str(expr.op) in {"sum", "avg"}:
        summed = DEPLOYMENT & set(_unaggregated(expr.expr))
        assert not summed, f"every process says {summed} of the deployment: take the max"
    if expr.modifier is None:
        return frozenset()
    assert expr.modifier.type == promql.AggModifierType.By, f"by, not without: {expr.prettify()}"
    labels = frozenset(expr.modifier.labels)
    assert labels <= inner, f"by ({labels - inner}), which is not there: {expr.prettify()}"
    return labels


def _combined(expr: promql.BinaryExpr, known: Mapping[str, Exposed]) -> Labels:
    left, right = labels_of(expr.lhs, known), labels_of(expr.rhs, known)
    if expr.modifier and expr.modifier.matching:
        matched = frozenset(expr.modifier.matching.labels)
        assert matched <= left & right, f"on ({matched}), not on both: {expr.prettify()}"
    elif not _is_number(expr.lhs) and not _is_number(expr.rhs):
        assert left == right, f"{left} and {right} never meet: {expr.prettify()}"
    return right if _is_number(expr.lhs) else left


def _called(expr: promql.Call, known: Mapping[str, Exposed]) -> Labels:
    if expr.func.name in OVER_TIME:
        (over,) = expr.args
        selector = over.vector_selector
        assert _metric(selector, known).grows, f"{selector.name} is a gauge: it has no rate"
        return _selected(selector, known)
    if expr.func.name == "histogram_quantile":
        inner = labels_of(expr.args[1], known)
        assert "le" in inner, f"a quantile needs le: {expr.prettify()}"
        return inner - {"le"}
    if expr.func.name == "label_replace":
        inner, target, source = labels_of(expr.args[0], known), expr.args[1], expr.args[3]
        assert source.val in inner, f"label_replace from {source.val}, which is not there"
        return inner | {target.val}
    raise AssertionError(f"these tests cannot check: {expr.func.name}")


def _metric(selector: promql.VectorSelector, known: Mapping[str, Exposed]) -> Exposed:
    name = selector.name or ""
    assert name in known, f"no process exposes {name}"
    return known[name]


def _is_number(expr: promql.Expr) -> bool:
    return isinstance(expr, promql.NumberLiteral)


def _unaggregated(expr: promql.Expr) -> Iterator[str]:
    """Yield the names in an expression that no aggregation over processes encloses."""
    match expr:
        case promql.VectorSelector():
            yield expr.name or ""
        case promql.MatrixSelector():
            yield expr.vector_selector.name or ""
        case promql.BinaryExpr():
            yield from _unaggregated(expr.lhs)
            yield from _unaggregated(expr.rhs)
        case promql.ParenExpr() | promql.UnaryExpr():
            yield from _unaggregated(expr.expr)
        case promql.Call():
            for argument in expr.args:
                yield from _unaggregated(argument)
        case _:
            return

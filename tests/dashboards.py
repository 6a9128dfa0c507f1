"""Reads the committed dashboards, for tests."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent
FILES: Final = sorted(ROOT.glob("grafana/dashboards/*.json"))
VARIABLES: Final = {"$__rate_interval": "1m", "$provider": ".+", "$queue": "email.high"}
"""The values that replace Grafana's variables in tests."""

Json = dict[str, Any]


class PanelQuery(NamedTuple):
    """One query of a panel."""

    dashboard: str
    panel: str
    expr: str
    legend: str

    def __str__(self) -> str:
        return f"{self.dashboard} / {self.panel} / {self.legend}"

    def filled(self, **variables: str) -> str:
        """Return the expression as Grafana sends it, with its variables replaced."""
        text = self.expr
        for name, value in (
            VARIABLES | {f"${key}": chosen for key, chosen in variables.items()}
        ).items():
            text = text.replace(name, value)
        return text


def dashboards() -> list[Json]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in FILES]


def panels(dashboard: Json) -> list[Json]:
    """Return the panels without the headings."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[PanelQuery]:
    return [
        PanelQuery(dashboard["uid"], panel["title"], target["expr"], target["legendFormat"])
        for dashboard in dashboards()
        for panel in panels(dashboard)
        for target in panel.get("targets", ())
    ]


def cells(panel: Json) -> set[tuple[int, int]]:
    """Return the cells of the grid that a panel covers."""
    position = panel["gridPos"]
    left, top = position["x"], position["y"]
    return set(product(range(left, left + position["w"]), range(top, top + position["h"])))

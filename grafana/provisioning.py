"""What Grafana reads at its start: where Prometheus is and where the dashboards lie."""

from __future__ import annotations

from typing import Final

WRITTEN: Final = "# Written by `python -m grafana.generate`; do not edit.\n"

# `timeInterval` is the longest that Prometheus may be between two scrapes: $__rate_interval is
# four of it, so that every rate has its samples.
DATASOURCES: Final = f"""{WRITTEN}apiVersion: 1

datasources:
  - name: Prometheus
    uid: prometheus
    type: prometheus
    access: proxy
    url: http://prometheus:9090
    isDefault: true
    editable: false
    jsonData:
      httpMethod: POST
      prometheusType: Prometheus
      timeInterval: 15s
"""

DASHBOARDS: Final = f"""{WRITTEN}apiVersion: 1

providers:
  - name: notifier
    folder: Notifier
    type: file
    disableDeletion: true
    allowUiUpdates: false
    updateIntervalSeconds: 30
    options:
      path: /etc/grafana/dashboards
"""

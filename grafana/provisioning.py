"""Grafana's provisioning: the address of Prometheus and the folder of the dashboards."""

from __future__ import annotations

from typing import Final

HEADER: Final = "# Written by `python -m grafana.generate`; do not edit.\n"

# `timeInterval` is the longest scrape interval that is allowed. $__rate_interval is four times as
# long, so that every rate has enough samples.
DATASOURCES: Final = f"""{HEADER}apiVersion: 1

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

DASHBOARDS: Final = f"""{HEADER}apiVersion: 1

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

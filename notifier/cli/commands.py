"""The table of commands. The module of a command is imported when the command is called."""

from __future__ import annotations

from typing import Final

from cyclopts import App, Group

from notifier import __version__

PROCESSES: Final = Group("Processes", sort_key=1)
NOTIFICATIONS: Final = Group("Notifications", sort_key=2)
TOOLS: Final = Group("Tools", sort_key=3)

app: Final = App(
    name="notifier",
    help="Self-hosted notification delivery with priorities and no lost notifications.",
    version=__version__,
    help_format="plaintext",
)

_COMMANDS: Final = (
    (
        "processes:dev",
        PROCESSES,
        "Run API, worker and sandbox in one process, with its own servers.",
    ),
    ("processes:api", PROCESSES, "Run an API process: accepts notifications."),
    ("processes:worker", PROCESSES, "Run a worker process: delivers accepted notifications."),
    ("processes:sandbox", PROCESSES, "Run a fake provider for email, SMS and push."),
    ("send:send", NOTIFICATIONS, "Submit one notification."),
    ("send:status", NOTIFICATIONS, "Show one notification and its attempts."),
    ("queues:queues", NOTIFICATIONS, "Show every queue and what limits it."),
    ("providers:providers", NOTIFICATIONS, "Show every provider and its breaker."),
    ("pause:pause", NOTIFICATIONS, "Pause a queue, a channel or a provider."),
    ("pause:resume", NOTIFICATIONS, "Resume a queue, a channel or a provider."),
    ("load.command:load", TOOLS, "Submit many notifications and measure their delivery."),
    ("setup:migrate", TOOLS, "Create the database's tables, or update them."),
    ("setup:check_config", TOOLS, "Show every setting and where it comes from."),
    (
        "doctor:doctor",
        TOOLS,
        "Check settings, Postgres, RabbitMQ and providers; say how to fix problems.",
    ),
)

for _path, _group, _help in _COMMANDS:
    app.command(f"notifier.cli.{_path}", group=_group, help=_help)

"""Which commands there are. Each names its module, which is imported when it is called."""

from __future__ import annotations

from typing import Final

from cyclopts import App, Group

from notifier import __version__

PROCESSES: Final = Group("Processes", sort_key=1)
NOTIFICATIONS: Final = Group("Notifications", sort_key=2)
TOOLS: Final = Group("Tools", sort_key=3)

app: Final = App(
    name="notifier",
    help="Self-hosted notification delivery: real priorities, consumers that move, nothing lost.",
    version=__version__,
    help_format="plaintext",
)

_COMMANDS: Final = (
    ("processes:dev", PROCESSES, "Run everything in one process, on servers of its own."),
    ("processes:api", PROCESSES, "Run an API process: accepts notifications."),
    ("processes:worker", PROCESSES, "Run a worker process: delivers what was accepted."),
    ("processes:sandbox", PROCESSES, "Run a fake provider for email, SMS and push."),
    ("send:send", NOTIFICATIONS, "Submit one notification."),
    ("send:status", NOTIFICATIONS, "Show one notification with its attempts."),
    ("queues:queues", NOTIFICATIONS, "Show every queue, and what keeps it from moving."),
    ("providers:providers", NOTIFICATIONS, "Show every provider, and whether its breaker is open."),
    ("pause:pause", NOTIFICATIONS, "Hold back a queue, a channel or a provider."),
    ("pause:resume", NOTIFICATIONS, "Let a queue, a channel or a provider go on."),
    ("load.command:load", TOOLS, "Submit many notifications and measure what becomes of them."),
    ("setup:migrate", TOOLS, "Bring the database's tables up to date."),
    ("setup:check_config", TOOLS, "Show every setting and where it comes from."),
    ("doctor:doctor", TOOLS, "Check everything it stands on, and say how to mend what is wrong."),
)

for _path, _group, _help in _COMMANDS:
    app.command(f"notifier.cli.{_path}", group=_group, help=_help)

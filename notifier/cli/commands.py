"""The table of commands. The module of a command is imported when the command is called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Group, Parameter

from notifier import __version__

PROCESSES: Final = Group("Processes", sort_key=1)
NOTIFICATIONS: Final = Group("Notifications", sort_key=2)
ACCESS: Final = Group("Access", sort_key=3)
TOOLS: Final = Group("Tools", sort_key=4)

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
    ("listing:list_", NOTIFICATIONS, "List notifications by status, channel, reason, ..."),
    ("status:status", NOTIFICATIONS, "Show one notification and its attempts."),
    ("operations:cancel", NOTIFICATIONS, "Cancel notifications that wait: one, or many."),
    ("operations:retry", NOTIFICATIONS, "Send notifications again that have ended: one, or many."),
    ("operations:erase", NOTIFICATIONS, "Erase what is stored of a recipient."),
    ("operations:operations", NOTIFICATIONS, "Show, watch or stop what was asked of many."),
    ("explain:explain", NOTIFICATIONS, "Show why a notification waits, and for how long."),
    ("events:events", NOTIFICATIONS, "Show what happened, or follow what happens."),
    ("stats:stats", NOTIFICATIONS, "Show what was sent and what ended, by minute, hour or day."),
    ("queues:queues", NOTIFICATIONS, "Show every queue and what limits it."),
    ("providers:providers", NOTIFICATIONS, "Show every provider and its breaker."),
    ("workers:workers", NOTIFICATIONS, "Show every live process."),
    ("pause:pause", NOTIFICATIONS, "Pause a queue, a channel, a provider or a tenant."),
    ("pause:resume", NOTIFICATIONS, "Resume a queue, a channel, a provider or a tenant."),
    ("pause:pauses", NOTIFICATIONS, "Show every pause."),
    ("audit:audit", ACCESS, "Show what people did."),
    ("load.command:load", TOOLS, "Submit many notifications and measure their delivery."),
    ("setup:migrate", TOOLS, "Create the database's tables, or update them."),
    ("setup:check_config", TOOLS, "Show every setting and where it comes from."),
    (
        "doctor:doctor",
        TOOLS,
        "Check settings, Postgres, RabbitMQ and providers; say how to fix problems.",
    ),
)

_KEYS: Final = (
    ("create", "Make a key, and print it once."),
    ("list", "Show all keys."),
    ("revoke", "Revoke a key: within 5 s every process refuses it."),
)
_TENANTS: Final = (
    ("set", "Make a tenant, or change its note."),
    ("list", "Show all tenants."),
    ("quiet", "Set, show or remove the quiet hours of a tenant."),
    ("delete", "Delete a tenant without keys, schedules and waiting notifications."),
)

_TEMPLATES: Final = (
    ("push", "Save the templates of a folder that have changed."),
    ("list", "Show all templates."),
    ("show", "Show the texts of a template."),
    ("preview", "Show what a recipient would get."),
)
_SUPPRESSIONS: Final = (
    ("list", "Show suppressions, newest first."),
    ("add", "Suppress a recipient on a channel."),
    ("remove", "End a suppression by its id."),
    ("import", "Add suppressions from a CSV file."),
)
_SCHEDULES: Final = (
    ("list", "Show all schedules."),
    ("create", "Submit a notification at each instant of a cron expression."),
    ("delete", "Delete a schedule by its id."),
    ("pause", "Pause a schedule by its id."),
    ("resume", "Resume a schedule by its id."),
)
_WEBHOOKS: Final = (
    ("list", "Show all webhooks."),
    ("create", "Have a URL called with events."),
    ("update", "Change a webhook, disable it, or enable it again."),
    ("delete", "Delete a webhook by its id."),
    ("rotate", "Replace the secret of a webhook."),
    ("test", "Call a webhook with a test, or repeat what it missed."),
)

for _name, _in, _table, _help in (
    ("templates", NOTIFICATIONS, _TEMPLATES, "Save, show and preview templates."),
    ("suppressions", NOTIFICATIONS, _SUPPRESSIONS, "Recipients to whom nothing may be sent."),
    ("schedules", NOTIFICATIONS, _SCHEDULES, "Notifications that are submitted again and again."),
    ("webhooks", NOTIFICATIONS, _WEBHOOKS, "URLs that are called with events."),
    ("keys", ACCESS, _KEYS, "Make, show and revoke API keys."),
    ("tenants", ACCESS, _TENANTS, "Make, show and delete tenants."),
):
    _group_app = App(name=_name, help=_help, group=_in)
    app.command(_group_app)
    for _verb, _help in _table:
        _group_app.command(f"notifier.cli.{_name}:{_verb}_{_name}", name=_verb, help=_help)

for _path, _group, _help in _COMMANDS:
    app.command(f"notifier.cli.{_path}", group=_group, help=_help)


@app.meta.default
def run_command(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    key_file: Annotated[
        Path | None, Parameter(help="Of every command: a file with the key that the API gets.")
    ] = None,
) -> object:
    """Run the command that the tokens name. Raises CycloptsError for wrong ones."""
    if key_file is not None:
        from notifier.cli.environment import use_key_file  # noqa: PLC0415 start-up time

        use_key_file(key_file)
    return app(tokens, exit_on_error=False, print_error=False, result_action="return_value")

"""Adds the inboxes of users."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    """Run 0026_inbox.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)

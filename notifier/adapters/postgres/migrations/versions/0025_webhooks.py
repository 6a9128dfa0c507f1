"""Adds the webhooks."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    """Run 0025_webhooks.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)

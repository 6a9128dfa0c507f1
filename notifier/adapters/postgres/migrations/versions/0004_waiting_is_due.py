"""Restricts the index for expiry to due rows: marking a row as published writes one index less."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run 0004_waiting_is_due.sql."""
    run_sql_script(__file__)

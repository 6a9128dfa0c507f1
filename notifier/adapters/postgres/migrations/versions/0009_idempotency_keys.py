"""Adds the idempotency keys of submits, by day."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Run 0009_idempotency_keys.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)

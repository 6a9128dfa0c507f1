"""Adds keys, tenants and the audit, and whose a notification is."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Run 0007_keys.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)

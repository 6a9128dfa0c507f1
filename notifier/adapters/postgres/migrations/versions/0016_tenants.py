"""Adds settings of tenants, and keeps the names of deleted ones until nothing of them is stored."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Run 0016_tenants.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)

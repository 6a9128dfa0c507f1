"""Adds the receipts of providers."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    """Run 0024_receipts.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)

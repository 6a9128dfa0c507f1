"""Replaces the plain hashes of collapse keys, which could be guessed."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    """Run 0022_erasure.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)

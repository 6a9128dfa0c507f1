"""Counts the attempts that spend no try, and keeps the last code of a breaker."""

from notifier.adapters.postgres.migrations.sql_script import run_sql_script

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Run 0006_attempts_without_a_try.sql. Processes of the version before may run meanwhile."""
    run_sql_script(__file__)

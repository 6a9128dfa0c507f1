"""The index of what may expire leaves out what is published: taking a row writes one index less."""

from notifier.adapters.postgres.migrations.plain import run_sql_beside

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Run 0004_waiting_is_due.sql."""
    run_sql_beside(__file__)

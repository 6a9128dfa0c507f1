"""What many workers share: provider rates, breakers, pauses."""

from notifier.adapters.postgres.migrations.plain import run_sql_beside

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Run 0002_many_workers.sql."""
    run_sql_beside(__file__)

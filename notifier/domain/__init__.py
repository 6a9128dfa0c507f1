"""Values and decisions: pure, without asyncio, drivers or a clock."""

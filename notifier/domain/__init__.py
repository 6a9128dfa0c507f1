"""Pure values and decisions: no asyncio, no drivers, no clock."""

"""Who works where: lanes, the consumers that move between them, and the scheduler."""

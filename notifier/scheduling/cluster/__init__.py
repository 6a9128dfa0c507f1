"""The other processes: which of them live, and which messages were lost."""

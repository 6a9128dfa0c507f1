"""The other processes: which are alive, what they report, and which messages are lost."""

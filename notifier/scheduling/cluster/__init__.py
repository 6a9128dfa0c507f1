"""The other processes: liveness, reported figures, and evidence of lost messages."""

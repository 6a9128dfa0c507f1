"""What tests, benchmarks and rehearsals share: a running system, its client, its judge."""

"""The stand-in for RabbitMQ in one process: the same semantics, in memory."""

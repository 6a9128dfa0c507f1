"""The in-process broker: the semantics of RabbitMQ in the memory of one process."""

"""The broker on RabbitMQ: it reconnects, declares its queues again and resumes subscriptions."""

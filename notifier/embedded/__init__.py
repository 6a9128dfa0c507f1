"""Launchers of a private Postgres and a private RabbitMQ, for `notifier dev` and the tests."""

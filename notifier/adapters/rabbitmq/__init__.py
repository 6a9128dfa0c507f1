"""RabbitMQ behind `notifier.ports.Broker`: it reconnects, redeclares and resumes by itself."""

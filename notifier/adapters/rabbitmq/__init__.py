"""RabbitMQ behind `ports.broker.Broker`: it reconnects, redeclares and resumes by itself."""

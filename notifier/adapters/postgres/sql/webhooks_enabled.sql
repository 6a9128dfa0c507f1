-- Reads all webhooks that are enabled.
SELECT * FROM webhooks WHERE status = 'enabled' ORDER BY id

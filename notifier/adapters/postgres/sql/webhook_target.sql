-- Reads where a webhook is called, and what signs its calls.
-- Parameters: $1 id.
-- Returns: one row if there is such a webhook.
SELECT url, status, secret, CASE WHEN old_secret_until > now() THEN old_secret END AS old_secret
FROM webhooks WHERE id = $1

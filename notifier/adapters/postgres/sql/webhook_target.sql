-- Reads where a webhook is called, and what signs its calls, the newest secret first.
-- Parameters: $1 id.
-- Returns: one row if there is such a webhook.
SELECT url, status,
       ARRAY[secret] || ARRAY(SELECT old FROM unnest(old_secrets, old_secrets_until)
                                  WITH ORDINALITY AS t (old, until, place)
                              WHERE until > now() ORDER BY place) AS secrets
FROM webhooks WHERE id = $1

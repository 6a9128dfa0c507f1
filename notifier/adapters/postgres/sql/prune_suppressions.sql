-- Removes suppressions that have expired for longer than notifications are kept.
-- Parameters: $1 for how many days notifications are kept, $2 the maximum number of rows.
-- Repeating it continues with the next ones. One that is prolonged meanwhile stays.
DELETE FROM suppressions
WHERE id = ANY (ARRAY(SELECT id FROM suppressions
                      WHERE expires_at < now() - make_interval(days => $1) LIMIT $2))
  AND expires_at < now() - make_interval(days => $1)

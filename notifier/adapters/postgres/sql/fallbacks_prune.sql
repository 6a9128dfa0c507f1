-- Removes the fallbacks of notifications of days that are dropped.
-- Parameters: $1 for how many days notifications are kept, $2 the maximum number of rows.
-- Repeating it continues with the next ones.
DELETE FROM fallbacks
WHERE id = ANY (ARRAY(SELECT id FROM fallbacks
                      WHERE id < uuid_at(now() - make_interval(days => $1 + 1)) LIMIT $2))

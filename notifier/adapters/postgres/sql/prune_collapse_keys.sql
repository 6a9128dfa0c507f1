-- Removes the collapse keys of notifications of days that are dropped: these wait no more.
-- Parameters: $1 for how many days notifications are kept, $2 the maximum number of rows.
-- Repeating it continues with the next ones.
DELETE FROM collapse_keys
WHERE key = ANY (ARRAY(SELECT key FROM collapse_keys
                       WHERE id < uuid_at(now() - make_interval(days => $1 + 1)) LIMIT $2))

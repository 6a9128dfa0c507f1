-- Notes that the guard has judged a tag, and forgets those of before.
-- Parameters: $1 the tag, $2 the share of bad results.
-- Returns: nothing. Repeating it moves the time.
WITH old AS (DELETE FROM judged_tags WHERE at < now() - interval '30 days' AND tag <> $1)
INSERT INTO judged_tags (tag, share) VALUES ($1, $2)
ON CONFLICT (tag) DO UPDATE SET share = excluded.share, at = now()

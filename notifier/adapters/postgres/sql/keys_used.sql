-- Notes when keys were last used.
-- Parameters: $1 ids without duplicates, $2 for how many seconds each has not been used.
-- Returns: nothing. Of two processes the later use counts.
UPDATE keys k SET last_used_at = now() - make_interval(secs => t.ago)
FROM (SELECT * FROM unnest($1::text[], $2::double precision[]) AS t (id, ago) ORDER BY id) t
WHERE k.id = t.id
  AND (k.last_used_at IS NULL OR k.last_used_at < now() - make_interval(secs => t.ago))

-- Deletes lookups of erased notifications.
-- Parameters: $1 hashes, $2 the id of each, $3 and $4 the least and the greatest id.
-- Repeating it changes nothing.
DELETE FROM lookups k USING unnest($1::uuid[], $2::uuid[]) AS t (hash, id)
WHERE k.hash = ANY ($1::uuid[]) AND k.id BETWEEN $3 AND $4 AND k.hash = t.hash AND k.id = t.id

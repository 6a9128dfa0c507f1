-- Replaces the contents of calls of webhooks that erase_calls_read.sql has locked.
-- Parameters, one value per call: $1 ids, $2 contents. $3 and $4 the least and the greatest id.
-- Repeating it changes nothing more.
UPDATE notifications n SET content = t.content
FROM unnest($1::uuid[], $2::bytea[]) AS t (id, content)
WHERE n.id = t.id AND n.id = ANY ($1::uuid[]) AND n.id BETWEEN $3 AND $4

-- Stores the lookups of the provider's ids of messages before record_late.sql writes the attempts. One
-- without an attempt finds nothing.
-- Parameters: $1 ids, $2 hashes, $3 and $4 the least and the greatest id.
-- Returns: nothing.
-- Repeating it adds rows that find the same.
INSERT INTO lookups (hash, id)
SELECT hash, id FROM unnest($1::uuid[], $2::uuid[]) AS t (id, hash)
WHERE EXISTS (SELECT FROM notifications n WHERE n.id = t.id AND n.id BETWEEN $3 AND $4)

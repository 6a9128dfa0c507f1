-- A part of insert.sql and insert_keyed.sql: stores the lookups of what they store.
-- Parameters: $1 ids, $2 hashes.
, looked_up AS (
    INSERT INTO lookups (hash, id)
    SELECT hash, id FROM unnest($1::uuid[], $2::uuid[]) AS t (id, hash) JOIN stored USING (id)
)

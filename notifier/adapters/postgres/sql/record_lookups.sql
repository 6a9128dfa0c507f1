-- A part of record_sent.sql: stores the lookups of the provider's ids of the messages.
-- Parameters: $1 ids, $2 hashes.
, looked_up AS (
    INSERT INTO lookups (hash, id)
    SELECT hash, id FROM unnest($1::uuid[], $2::uuid[]) AS t (id, hash) JOIN moved USING (id)
)

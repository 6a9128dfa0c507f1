-- A part of insert.sql and insert_keyed.sql: notifications with a collapse key replace the one that
-- had the key before, and those before them in the batch. What they replace is noted in `collapsed`
-- and ended by collapse.sql: this statement does not see what it waited for.
-- The keys are written in their order, so that two statements cannot wait for each other.
-- Parameters: $1 ids, $2 hashes of collapse keys.
, sharing AS (
    SELECT t.id, t.key, t.number
    FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS t (id, key, number)
    JOIN stored USING (id)
), newest AS (
    SELECT DISTINCT ON (key) key, id FROM sharing ORDER BY key, number DESC
), collapsing AS (
    INSERT INTO collapse_keys AS c (key, id)
    SELECT key, id FROM newest ORDER BY key
    ON CONFLICT (key) DO UPDATE SET previous = c.id, id = excluded.id
    RETURNING id, previous
), replacing AS (
    INSERT INTO collapsed (replaced_by, id)
    SELECT id, previous FROM collapsing WHERE previous IS NOT NULL
    UNION ALL
    SELECT n.id, a.id FROM sharing a JOIN newest n USING (key) WHERE a.id <> n.id
    ON CONFLICT DO NOTHING
)

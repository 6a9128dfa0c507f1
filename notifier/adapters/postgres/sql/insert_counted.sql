-- A part of insert.sql and insert_keyed.sql: counts what they store for its recipients, by the day of
-- Postgres's clock in UTC. The counts are written in their order, so that two statements cannot wait
-- for each other.
-- Parameters: $1 ids, $2 hashes of recipients.
, counted AS (
    INSERT INTO recipient_counts AS c (hash, day, count)
    SELECT hash, (now() AT TIME ZONE 'UTC')::date, count(*)
    FROM unnest($1::uuid[], $2::uuid[]) AS t (id, hash) JOIN stored USING (id)
    GROUP BY hash ORDER BY hash
    ON CONFLICT (hash, day) DO UPDATE SET count = c.count + excluded.count
)

-- Notes blobs that nobody refers to since their notifications were erased. They are kept for a while:
-- an API process may have looked one up for a submit that is not stored yet. `last_day` is put back, so
-- that whoever looks one up from now on raises it.
-- Parameters: $1 id of the operation, $2 tenants, $3 hashes, $4 and $5 the hashes of the lookups of
-- those who use them, in both modes, $6 for how many seconds they are kept.
-- Repeating it changes nothing, except for the time.
WITH unused AS MATERIALIZED (
    SELECT t.tenant, t.hash, ARRAY[t.live, t.test] AS lookups
    FROM unnest($2::text[], $3::bytea[], $4::uuid[], $5::uuid[]) AS t (tenant, hash, live, test)
    WHERE (SELECT id FROM lookups WHERE hash = t.live LIMIT 1) IS NULL
      AND (SELECT id FROM lookups WHERE hash = t.test LIMIT 1) IS NULL
      AND NOT EXISTS (SELECT FROM schedules s WHERE s.tenant = t.tenant AND t.hash = ANY (s.blobs))
      -- A fallback that waits has no lookups: its submit is read, if it has files.
      AND NOT EXISTS (SELECT FROM fallbacks f
                      WHERE f.look_at IS NOT NULL
                        AND f.needs && ARRAY['content.attachments', 'content.mime']
                        AND position(convert_to('"sha256:' || encode(t.hash, 'hex'), 'UTF8') IN f.submit) > 0)
      AND (SELECT n.id FROM notifications n
           WHERE n.id < (SELECT uuid_at(since + interval '1 hour') FROM lookup_starts WHERE kind = 'file')
             AND n.recipient <> '' LIMIT 1) IS NULL
), marked AS (
    UPDATE blobs b SET last_day = least(b.last_day, (now() AT TIME ZONE 'UTC')::date - 1)
    FROM unused u
    WHERE b.tenant = u.tenant AND b.hash = ANY ($3::bytea[]) AND b.hash = u.hash
    RETURNING b.tenant, b.hash, b.last_day, u.lookups
)
INSERT INTO erased_blobs AS e (operation, tenant, hash, last_day, lookups, due_at)
SELECT $1, tenant, hash, last_day, lookups, now() + $6::double precision * interval '1 second' FROM marked
ON CONFLICT (operation, tenant, hash) DO UPDATE SET
    last_day = excluded.last_day, due_at = excluded.due_at

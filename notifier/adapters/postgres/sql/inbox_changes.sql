-- Reads the entries of some inboxes that were added or marked since a snapshot.
-- Parameters: $1 the snapshot, $2 the tenants, $3 the modes and $4 the users of the inboxes, $5 the
-- maximum of rows per inbox, $6 the maximum of all rows.
-- Returns: one row per entry, with the `number` of its inbox, counted from 1, and `is_new` if it was
-- added since; `snapshot` is what was visible, `timeline` as in inbox_now.sql. One row with a null
-- `number` if nothing was changed. In the order of `number`: at the maximum of all rows a part of the
-- last inbox, and those after it, are missing.
-- (Transactions after the present are of another cluster, from which a dump was restored.)
SELECT s.snapshot, s.timeline, c.number, c.id, c.subject, c.body, c.data, c.created_at, c.read_at, c.expires_at,
       NOT pg_visible_in_snapshot(c.added, $1::text::pg_snapshot) AS is_new
FROM (SELECT pg_current_snapshot()::text AS snapshot,
             left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline) s
LEFT JOIN LATERAL (
    SELECT t.number, e.*
    FROM unnest($2::text[], $3::text[], $4::text[])
         WITH ORDINALITY AS t (tenant, mode, user_id, number)
    CROSS JOIN LATERAL (
        SELECT * FROM inbox_entries i
        WHERE i.tenant = t.tenant AND i.mode = t.mode AND i.user_id = t.user_id
          AND i.changed >= pg_snapshot_xmin($1::text::pg_snapshot)
          AND i.changed < pg_snapshot_xmax(pg_current_snapshot())
          AND NOT pg_visible_in_snapshot(i.changed, $1::text::pg_snapshot)
        ORDER BY i.changed LIMIT $5
    ) e
    ORDER BY t.number LIMIT $6
) c ON true
ORDER BY c.number, c.created_at, c.id

-- Events. A statement that ends or changes notifications writes one row for all those that get the
-- same type and reason. Processes of the version before do not know the table: they write none.
--   day        of the transaction, by Postgres's clock in UTC
--   xid        the number of the transaction. That of a row which a dump brought from elsewhere is
--              not its own: readers see by its xmin that the row is not of this history
--   at         when the row was written
--   reason     of the end of notifications; '': none
--   ids        of the notifications; otherwise of what the events concern, or random
--   claims     of the notifications; null: the events are not of notifications
--   tries      of the notifications
--   tenant, mode  whose events they are, if not of notifications; null: of all
--   documents  JSON of each event that is not of a notification
CREATE TABLE event_batches (
    day date NOT NULL,
    xid bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    type text NOT NULL,
    reason text NOT NULL DEFAULT '',
    ids uuid[] NOT NULL,
    claims integer[],
    tries smallint[],
    tenant text,
    mode text,
    documents text[]
) PARTITION BY LIST (day);
CREATE INDEX event_batches_xid ON event_batches (xid);

-- ensure_days leaves out the days that it has made before.
DO $$
DECLARE
    day text;
BEGIN
    FOR day IN SELECT right(child.relname, 8)
               FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
               WHERE inhparent = 'ends'::regclass
                 AND right(child.relname, 8) >= to_char((now() AT TIME ZONE 'UTC')::date - 1, 'YYYYMMDD')
    LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF event_batches FOR VALUES IN (%L)',
                       'event_batches_' || day, to_date(day, 'YYYYMMDD'));
    END LOOP;
END
$$;

-- As in 0012, and the partitions of event_batches.
CREATE OR REPLACE FUNCTION ensure_days(ahead integer DEFAULT 7) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    day date;
    parent text;
    child text;
    made integer := 0;
BEGIN
    IF ahead NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'ahead is %, must be 0 to 366', ahead USING ERRCODE = '22023';
    END IF;
    FOR day IN SELECT today + n FROM generate_series(-1, ahead) AS n LOOP
        CONTINUE WHEN to_regclass('ends_' || to_char(day, 'YYYYMMDD')) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('notifier.days'));
        FOREACH parent IN ARRAY ARRAY['notifications', 'attempts', 'lookups', 'ends',
                                      'idempotency_keys', 'event_batches'] LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES ', parent, child)
                || CASE WHEN parent IN ('idempotency_keys', 'event_batches')
                        THEN format('IN (%L)', day)
                        ELSE format('FROM (%L) TO (%L)', uuid_at(day_start(day)),
                                    uuid_at(day_start(day + 1))) END;
        END LOOP;
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Drops the events of the days before the last `keep_days` full ones and the one before those, whose
-- events are no longer read; returns how many days. Gives up after 200 ms of waiting for a lock
-- (55P03).
CREATE FUNCTION drop_events(keep_days integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
    first_kept text := to_char((now() AT TIME ZONE 'UTC')::date - keep_days - 1, 'YYYYMMDD');
    child text;
    dropped integer := 0;
BEGIN
    IF keep_days < 1 THEN
        RAISE EXCEPTION 'keep_days is %, must be at least 1', keep_days USING ERRCODE = '22023';
    END IF;
    FOR child IN SELECT c.relname
                 FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
                 WHERE inhparent = 'event_batches'::regclass AND right(c.relname, 8) < first_kept
                 ORDER BY c.relname LOOP
        LOCK TABLE ONLY event_batches IN ACCESS EXCLUSIVE MODE;  -- the parent first: see drop_day
        EXECUTE format('DROP TABLE IF EXISTS %I', child);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
REVOKE EXECUTE ON FUNCTION drop_events(integer) FROM PUBLIC;

-- lost_beat: the counter at which others found the process dead; null: none did. An event was written
-- for it. The version before works with the column, which it does not know. As in 0008, each try
-- waits for at most 200 ms.
DO $$
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            SET LOCAL lock_timeout = '200ms';
            ALTER TABLE workers ADD COLUMN lost_beat bigint;
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 300 THEN
                RAISE;
            END IF;
            PERFORM pg_sleep(0.2);
        END;
    END LOOP;
END
$$;
SET LOCAL lock_timeout = 0;

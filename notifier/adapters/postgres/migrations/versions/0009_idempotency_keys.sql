-- One row for each idempotency key that was used on a day, by Postgres's clock in UTC.
--   key     the first 128 bits of SHA-256 of tenant, mode and key
--   id      the notification that was stored with it
--   body    the first 128 bits of SHA-256 of the submit as canonical JSON
--   status  of the answer to it
CREATE TABLE idempotency_keys (
    key uuid NOT NULL,
    day date NOT NULL,
    id uuid NOT NULL,
    body uuid NOT NULL,
    status notification_status NOT NULL,
    PRIMARY KEY (key, day)
) PARTITION BY LIST (day);

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
        EXECUTE format('CREATE TABLE %I PARTITION OF idempotency_keys FOR VALUES IN (%L)',
                       'idempotency_keys_' || day, to_date(day, 'YYYYMMDD'));
    END LOOP;
END
$$;

-- As in 0005, and the partitions of idempotency_keys. Each day in `ends` has all of them.
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
        FOREACH parent IN ARRAY ARRAY['notifications', 'attempts', 'ends', 'idempotency_keys'] LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES ', parent, child)
                || CASE WHEN parent = 'idempotency_keys' THEN format('IN (%L)', day)
                        ELSE format('FROM (%L) TO (%L)', uuid_at(day_start(day)),
                                    uuid_at(day_start(day + 1))) END;
        END LOOP;
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Drops the idempotency keys of the days before the last `keep_days` full ones; returns how many
-- days. Gives up after 200 ms of waiting for a lock (55P03).
CREATE FUNCTION drop_keys(keep_days integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
    first_kept text := to_char((now() AT TIME ZONE 'UTC')::date - keep_days, 'YYYYMMDD');
    child text;
    dropped integer := 0;
BEGIN
    IF keep_days < 1 THEN
        RAISE EXCEPTION 'keep_days is %, must be at least 1', keep_days USING ERRCODE = '22023';
    END IF;
    FOR child IN SELECT c.relname
                 FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
                 WHERE inhparent = 'idempotency_keys'::regclass AND right(c.relname, 8) < first_kept
                 ORDER BY c.relname LOOP
        LOCK TABLE ONLY idempotency_keys IN ACCESS EXCLUSIVE MODE;  -- the parent first: see drop_day
        EXECUTE format('DROP TABLE IF EXISTS %I', child);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
REVOKE EXECUTE ON FUNCTION drop_keys(integer) FROM PUBLIC;

-- What providers reported and has no notification yet. Processes of the version before do not know the
-- table: they receive no receipts.
--   key           the same for each copy of a receipt of this provider
--   hash          of the lookup of the reference: see domain/lookups.py
--   reason        of an undelivered message; '' for others
--   recipient     as the provider wrote it; null if it did not
--   next_at       when its notification is looked for next
--   is_suppressed whether its recipient was suppressed before its notification was found
CREATE TABLE receipts_unmatched (
    provider text NOT NULL,
    key uuid NOT NULL,
    hash uuid NOT NULL,
    reference text NOT NULL,
    event text NOT NULL,
    reason text NOT NULL,
    code text NOT NULL,
    detail text NOT NULL,
    recipient text,
    provider_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    next_at timestamptz NOT NULL,
    is_suppressed boolean NOT NULL DEFAULT false,
    PRIMARY KEY (provider, key)
) WITH (fillfactor = 70, vacuum_truncate = off);
CREATE INDEX receipts_unmatched_next ON receipts_unmatched (next_at);

-- The receipts of notifications; written once.
--   claim  of the attempt that it belongs to
CREATE TABLE receipts (
    id uuid NOT NULL,
    claim integer NOT NULL,
    provider text NOT NULL,
    key uuid NOT NULL,
    event text NOT NULL,
    reason text NOT NULL,
    code text NOT NULL,
    detail text NOT NULL,
    provider_at timestamptz NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (id, provider, key)
) PARTITION BY RANGE (id);

DO $$
DECLARE
    day text;
BEGIN
    FOR day IN SELECT right(child.relname, 8)
               FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
               WHERE inhparent = 'notifications'::regclass LOOP
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF receipts FOR VALUES FROM (%L) TO (%L)', 'receipts_' || day,
            uuid_at(day_start(to_date(day, 'YYYYMMDD'))),
            uuid_at(day_start(to_date(day, 'YYYYMMDD') + 1)));
    END LOOP;
END
$$;

-- As in 0020, and the partitions of receipts.
CREATE OR REPLACE FUNCTION ensure_days(ahead integer DEFAULT 7) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    today date := (now() AT TIME ZONE 'UTC')::date;
    parents text[] := ARRAY['notifications', 'attempts', 'lookups', 'receipts', 'ends',
                            'idempotency_keys', 'event_batches'];
    day date;
    parent text;
    child text;
    made integer := 0;
BEGIN
    IF ahead NOT BETWEEN 0 AND 366 THEN
        RAISE EXCEPTION 'ahead is %, must be 0 to 366', ahead USING ERRCODE = '22023';
    END IF;
    FOR day IN SELECT today + n FROM generate_series(-1, ahead) AS n LOOP
        -- Some are missing if a process made the day while a migration ran.
        CONTINUE WHEN NOT EXISTS (SELECT FROM unnest(parents) AS each
                                  WHERE to_regclass(each || to_char(day, '_YYYYMMDD')) IS NULL);
        PERFORM pg_advisory_xact_lock(hashtext('notifier.days'));
        FOREACH parent IN ARRAY parents LOOP
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

-- As in 0012, and the partition of receipts.
CREATE OR REPLACE FUNCTION drop_day(day date) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
    suffix text := '_' || to_char(day, 'YYYYMMDD');
    first uuid := uuid_at(day_start(day));
    beyond uuid := uuid_at(day_start(day + 1));
BEGIN
    IF day >= (now() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION '% is not over yet', day USING ERRCODE = '22023';
    END IF;
    IF to_regclass('notifications' || suffix) IS NULL THEN
        RETURN 'absent';
    END IF;
    IF EXISTS (SELECT FROM live WHERE id >= first AND id < beyond) THEN
        RETURN 'kept';
    END IF;
    -- The parents first, as every other statement does: the other way round is a deadlock.
    LOCK TABLE ONLY notifications, ONLY attempts, ONLY lookups, ONLY receipts,
        ONLY ends IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM live WHERE id >= first AND id < beyond) THEN
        RETURN 'kept';
    END IF;
    EXECUTE format('DROP TABLE %I', 'notifications' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'attempts' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'lookups' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'receipts' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'ends' || suffix);
    RETURN 'dropped';
END
$$;

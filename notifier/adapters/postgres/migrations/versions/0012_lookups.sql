-- The key of the hashes in the table `lookups`: 244 random bits. It must not change: what is stored
-- could no longer be found.
INSERT INTO secrets (name, value)
VALUES ('lookups', sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

-- By what notifications are found: see domain/lookups.py. A notification has one row for each of
-- its lookups that the settings ask for.
--   hash  of tenant, mode, kind and value
CREATE TABLE lookups (
    hash uuid NOT NULL,
    id uuid NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX lookups_hash ON lookups (hash, id);

--   tag    the caller's label of a campaign or a batch
--   topic  what a recipient can unsubscribe from; null: transactional
ALTER TABLE notifications ADD COLUMN tag text, ADD COLUMN topic text;

DO $$
DECLARE
    day text;
BEGIN
    FOR day IN SELECT right(child.relname, 8)
               FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid
               WHERE inhparent = 'notifications'::regclass LOOP
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF lookups FOR VALUES FROM (%L) TO (%L)', 'lookups_' || day,
            uuid_at(day_start(to_date(day, 'YYYYMMDD'))),
            uuid_at(day_start(to_date(day, 'YYYYMMDD') + 1)));
    END LOOP;
END
$$;

-- As in 0009, and the partitions of lookups.
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
                                      'idempotency_keys'] LOOP
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

-- As in 0005, and the partition of lookups.
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
    LOCK TABLE ONLY notifications, ONLY attempts, ONLY lookups, ONLY ends IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM live WHERE id >= first AND id < beyond) THEN
        RETURN 'kept';
    END IF;
    EXECUTE format('DROP TABLE %I', 'notifications' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'attempts' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'lookups' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'ends' || suffix);
    RETURN 'dropped';
END
$$;

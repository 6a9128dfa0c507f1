CREATE TYPE notification_status AS ENUM (
    'scheduled', 'queued', 'sending', 'retrying', 'sent', 'failed', 'expired', 'cancelled',
    'suppressed', 'delivered', 'undelivered'
);

-- One row a notification; day partitions by the instant in the UUIDv7.
--   due_at        not null: the relay may publish it then; null: published, being sent, or final
--   ready_at      when it became due last; waiting is counted from it and it keeps the place
--   published_at  when the relay last took it; null while it waits for the relay
--   is_retry      due after a failed attempt: stands behind first attempts in the relay
--   claim         the fence: grows with each taking by a consumer, never goes back
--   rescues       how often the present claim's message was taken for lost
--   deaths        how often a worker died while sending it
CREATE TABLE notifications (
    id uuid NOT NULL PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    ready_at timestamptz NOT NULL,
    due_at timestamptz,
    published_at timestamptz,
    claimed_by uuid,
    claim integer NOT NULL DEFAULT 0,
    tries smallint NOT NULL DEFAULT 0,
    max_tries smallint,
    deaths smallint NOT NULL DEFAULT 0,
    rescues smallint NOT NULL DEFAULT 0,
    is_retry boolean NOT NULL DEFAULT false,
    status notification_status NOT NULL,
    tenant text NOT NULL DEFAULT '',
    queue text NOT NULL,
    recipient text NOT NULL,
    last_error text,
    content bytea NOT NULL,
    metadata bytea NOT NULL
) PARTITION BY RANGE (id);

CREATE INDEX notifications_due ON notifications (queue, is_retry, due_at)
    WHERE due_at IS NOT NULL;
CREATE INDEX notifications_published ON notifications (queue, published_at)
    WHERE status = 'queued' AND due_at IS NULL;
CREATE INDEX notifications_sending ON notifications (claimed_by)
    WHERE status = 'sending';
CREATE INDEX notifications_waiting ON notifications (expires_at)
    WHERE status IN ('scheduled', 'queued', 'retrying');
CREATE INDEX notifications_ended ON notifications (status, id)
    WHERE status IN ('failed', 'expired', 'cancelled', 'suppressed', 'undelivered');

-- One row an attempt. A run of throttled attempts is one row that moves along: `repeats` counts it.
CREATE TABLE attempts (
    id uuid NOT NULL,
    claim integer NOT NULL,
    recorded_by uuid NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    next_at timestamptz,
    queue_wait_s real NOT NULL,
    repeats integer NOT NULL DEFAULT 0,
    late boolean NOT NULL DEFAULT false,
    provider text NOT NULL,
    outcome text NOT NULL,
    code text NOT NULL,
    detail text NOT NULL,
    reference text NOT NULL,
    PRIMARY KEY (id, claim)
) PARTITION BY RANGE (id);

CREATE TABLE failures (
    id uuid NOT NULL PRIMARY KEY,
    queue text NOT NULL,
    provider text NOT NULL,
    reason text NOT NULL,
    code text NOT NULL,
    detail text NOT NULL,
    tries integer NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL
) PARTITION BY RANGE (id);

-- One row a running process: its heartbeat, and what it says of its side of every queue.
CREATE TABLE workers (
    id uuid NOT NULL PRIMARY KEY,
    kind text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    beat bigint NOT NULL,
    beat_at timestamptz NOT NULL DEFAULT now(),
    figures jsonb NOT NULL
);

-- The least UUIDv7 of an instant (RFC 9562, section 5.7): 48 bits of milliseconds, then zeros.
CREATE FUNCTION uuid_at(instant timestamptz) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM instant) * 1000)::bigint), 12, '0')
            || repeat('0', 20))::uuid
$$;

CREATE FUNCTION day_start(day date) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT day::timestamp AT TIME ZONE 'UTC'
$$;

-- Makes the partitions from yesterday to `ahead` days from now; returns how many days it made.
-- A partition is made aside and attached: that waits for no reader and stops no writer.
CREATE FUNCTION ensure_days(ahead integer DEFAULT 7) RETURNS integer
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
        CONTINUE WHEN to_regclass('failures_' || to_char(day, 'YYYYMMDD')) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('notifier.days'));
        FOREACH parent IN ARRAY ARRAY['notifications', 'attempts', 'failures'] LOOP
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            CONTINUE WHEN to_regclass(child) IS NOT NULL;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
            EXECUTE format(
                'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                parent, child, uuid_at(day_start(day)), uuid_at(day_start(day + 1)));
        END LOOP;
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Drops one day if all its notifications are final: 'dropped', 'kept' (some are not) or 'absent'.
-- Refuses days that are not yet over. Gives up after 200 ms of waiting for a lock (55P03).
CREATE FUNCTION drop_day(day date) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
    suffix text := '_' || to_char(day, 'YYYYMMDD');
    alive boolean;
    probe text := format(
        'SELECT EXISTS (SELECT FROM %1$I WHERE status IN (''scheduled'', ''queued'', ''retrying''))
             OR EXISTS (SELECT FROM %1$I WHERE status = ''sending'')', 'notifications' || suffix);
BEGIN
    IF day >= (now() AT TIME ZONE 'UTC')::date THEN
        RAISE EXCEPTION '% is not over yet', day USING ERRCODE = '22023';
    END IF;
    IF to_regclass('notifications' || suffix) IS NULL THEN
        RETURN 'absent';
    END IF;
    EXECUTE probe INTO alive;
    IF alive THEN
        RETURN 'kept';
    END IF;
    -- The parents first, as every other statement does: the other way round is a deadlock.
    LOCK TABLE ONLY notifications, ONLY attempts, ONLY failures IN ACCESS EXCLUSIVE MODE;
    EXECUTE probe INTO alive;
    IF alive THEN
        RETURN 'kept';
    END IF;
    EXECUTE format('DROP TABLE %I', 'notifications' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'attempts' || suffix);
    EXECUTE format('DROP TABLE IF EXISTS %I', 'failures' || suffix);
    RETURN 'dropped';
END
$$;

REVOKE ALL ON FUNCTION ensure_days(integer), drop_day(date) FROM PUBLIC;

SELECT ensure_days();

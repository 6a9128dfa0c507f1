-- The default tenant is '' everywhere, and has no row here.
CREATE TABLE tenants (
    name text NOT NULL PRIMARY KEY,
    note text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now()
);

--   digest      SHA-256 of the secret
--   tenant      null: a deployment key
--   rate_per_s  null: no limit
--   expires_at  null: never
CREATE TABLE keys (
    id text NOT NULL PRIMARY KEY,
    digest bytea NOT NULL,
    tenant text,
    mode text NOT NULL,
    scopes text[] NOT NULL,
    rate_per_s double precision,
    note text NOT NULL DEFAULT '',
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    last_used_at timestamptz
);

-- How far the rate of each key is used up: until `tat` nothing is left of it (see key_rates.sql).
CREATE TABLE key_rates (
    key text NOT NULL PRIMARY KEY,
    tat timestamptz NOT NULL
) WITH (fillfactor = 50);

-- What this deployment signs with, if the settings have no secret of their own: 244 random bits.
CREATE TABLE secrets (
    name text NOT NULL PRIMARY KEY,
    value bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO secrets (name, value)
VALUES ('signing', sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

-- What people did, in the order of the ids. `tenant` null: it concerns the deployment.
CREATE TABLE audit (
    id uuid NOT NULL PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    tenant text,
    actor text NOT NULL,
    action text NOT NULL,
    target text NOT NULL,
    before jsonb,
    after jsonb,
    note text NOT NULL DEFAULT '',
    request_id text NOT NULL DEFAULT ''
);

-- Entries are only added, and removed when they are old. 42501 is insufficient_privilege.
CREATE FUNCTION keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.at < now() - interval '30 days' THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit is append-only: % of an entry', lower(TG_OP) USING ERRCODE = '42501';
END
$$;
CREATE TRIGGER keep_audit BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION keep_audit();
CREATE TRIGGER keep_whole_audit BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION keep_audit();

-- notifications:
--   test_channel  '' for a notification that is delivered; for one of a test key, which is on the
--                 channel `test`, the channel that was asked for
-- The version before works with this column, which it does not know: it has a default.
--
-- This comes last: its locks are held to the end of the transaction. As in 0006, a constant default
-- changes no row, and each try waits for at most 200 ms.
DO $$
BEGIN
    FOR attempt IN 1..300 LOOP
        BEGIN
            SET LOCAL lock_timeout = '200ms';
            ALTER TABLE notifications ADD COLUMN test_channel text NOT NULL DEFAULT '';
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

-- One row a provider that has a rate: one schedule for the whole deployment.
--   tat        the theoretical arrival time: up to this instant the rate is given away
--   factor     what is left of the rate after throttled answers, as of factor_at; it grows back
CREATE TABLE provider_rates (
    provider text NOT NULL PRIMARY KEY,
    tat timestamptz NOT NULL DEFAULT now(),
    factor real NOT NULL DEFAULT 1,
    factor_at timestamptz NOT NULL DEFAULT now()
);

CREATE TYPE breaker_state AS ENUM ('closed', 'open', 'half_open');

-- One row a provider whose breaker ever opened.
--   openings   how often it opened in a row: each doubles the wait
--   probe_at   open: from when a worker may take the probe; half_open: when its hold on it ends
--   held_by    half_open: the worker that probes
CREATE TABLE breakers (
    provider text NOT NULL PRIMARY KEY,
    state breaker_state NOT NULL,
    reason text NOT NULL,
    openings integer NOT NULL DEFAULT 0,
    changed_at timestamptz NOT NULL DEFAULT now(),
    probe_at timestamptz NOT NULL DEFAULT now(),
    held_by uuid
);

CREATE TYPE pause_kind AS ENUM ('queue', 'channel', 'provider');

CREATE TABLE pauses (
    kind pause_kind NOT NULL,
    name text NOT NULL,
    reason text NOT NULL,
    paused_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (kind, name)
);

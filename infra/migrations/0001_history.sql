-- History and catalogue. Every table takes the same message twice without harm.

CREATE TABLE metric_windows (
    window_id   text        NOT NULL,
    start_at    timestamptz NOT NULL,
    size_ms     integer     NOT NULL,
    environment text        NOT NULL,
    model       text        NOT NULL,
    version     text        NOT NULL,
    component   text        NOT NULL,
    partition   integer     NOT NULL,
    count       bigint      NOT NULL,
    errors      bigint      NOT NULL,
    revision    integer     NOT NULL,
    fields      jsonb       NOT NULL,
    PRIMARY KEY (window_id, start_at)
) PARTITION BY RANGE (start_at);
CREATE INDEX metric_windows_series ON metric_windows (environment, model, size_ms, start_at);

CREATE TABLE anomalies (
    anomaly_id  text        PRIMARY KEY,
    at          timestamptz NOT NULL,
    environment text        NOT NULL,
    model       text        NOT NULL,
    version     text        NOT NULL,
    component   text        NOT NULL,
    score       double precision NOT NULL,
    body        jsonb       NOT NULL
);
CREATE INDEX anomalies_at ON anomalies (environment, model, at DESC);

CREATE TABLE drift_events (
    drift_id    text        PRIMARY KEY,
    at          timestamptz NOT NULL,
    environment text        NOT NULL,
    model       text        NOT NULL,
    kind        text        NOT NULL,
    state       text        NOT NULL,
    body        jsonb       NOT NULL
);
CREATE INDEX drift_events_at ON drift_events (environment, model, at DESC);

CREATE TABLE alerts (
    alert_id    text        PRIMARY KEY,
    incident_id text        NOT NULL,
    at          timestamptz NOT NULL,
    environment text        NOT NULL,
    model       text        NOT NULL,
    state       text        NOT NULL,
    cause       text        NOT NULL,
    severity    text        NOT NULL,
    body        jsonb       NOT NULL
);
CREATE INDEX alerts_incident ON alerts (incident_id, at);
CREATE INDEX alerts_at ON alerts (at DESC);

CREATE TABLE retraining_requests (
    request_id  text        PRIMARY KEY,
    at          timestamptz NOT NULL,
    environment text        NOT NULL,
    model       text        NOT NULL,
    body        jsonb       NOT NULL
);

-- Windows of environments, segments and late labels: beside those of the series, so that nothing counts them twice.

CREATE TABLE level_windows (
    window_id   text        NOT NULL,
    start_at    timestamptz NOT NULL,
    size_ms     integer     NOT NULL,
    level       text        NOT NULL,       -- environment, segment, labels
    environment text        NOT NULL,
    model       text        NOT NULL,       -- 'all', where a name is above the level
    version     text        NOT NULL,
    component   text        NOT NULL,
    segment     text        NOT NULL,       -- KEY=VALUE, or empty
    partition   integer     NOT NULL,
    count       bigint      NOT NULL,
    errors      bigint      NOT NULL,
    revision    integer     NOT NULL,
    fields      jsonb       NOT NULL,
    PRIMARY KEY (window_id, size_ms, start_at)
) PARTITION BY RANGE (size_ms, start_at);
CREATE INDEX level_windows_series ON level_windows (level, environment, model, size_ms, start_at);

CREATE TABLE level_spans (
    size_ms    integer     NOT NULL,
    begin_at   timestamptz NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (size_ms, begin_at)
);

CREATE TABLE level_series (
    level       text        NOT NULL,
    environment text        NOT NULL,
    model       text        NOT NULL,
    version     text        NOT NULL,
    component   text        NOT NULL,
    segment     text        NOT NULL,
    partition   integer     NOT NULL,
    size_ms     integer     NOT NULL,
    first_at    timestamptz NOT NULL,
    end_at      timestamptz NOT NULL,       -- of its newest window
    written_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (level, environment, model, version, component, segment, partition, size_ms)
) WITH (fillfactor = 70);

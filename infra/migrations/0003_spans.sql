-- Windows by granularity and time: each partition holds one size, so that fine windows go long before coarse ones.
-- And the series that there are, each with how far its windows are known: read before every question.

ALTER TABLE metric_windows RENAME TO metric_windows_before;
ALTER INDEX metric_windows_series RENAME TO metric_windows_before_series;
ALTER INDEX metric_windows_pkey RENAME TO metric_windows_before_pkey;

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
    PRIMARY KEY (window_id, size_ms, start_at)
) PARTITION BY RANGE (size_ms, start_at);
CREATE INDEX metric_windows_series ON metric_windows (environment, model, size_ms, start_at);

-- A partition: the windows of one size that begin in [begin_at, begin_at + span). See streams/stores/spans.py.
CREATE TABLE window_spans (
    size_ms    integer     NOT NULL,
    begin_at   timestamptz NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (size_ms, begin_at)
);

CREATE TABLE metric_series (
    environment text        NOT NULL,
    model       text        NOT NULL,
    version     text        NOT NULL,
    component   text        NOT NULL,
    partition   integer     NOT NULL,
    size_ms     integer     NOT NULL,
    first_at    timestamptz NOT NULL,
    end_at      timestamptz NOT NULL,       -- of its newest window
    written_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (environment, model, version, component, partition, size_ms)
) WITH (fillfactor = 70);

DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT old.size_ms, span.days, to_timestamp(floor(extract(epoch FROM old.start_at) / (86400 * span.days))
               * 86400 * span.days) AS begin_at, max(day.written_at) AS written_at
        FROM metric_windows_before old
        JOIN window_days day ON day.day = (old.start_at AT TIME ZONE 'UTC')::date
        CROSS JOIN LATERAL (SELECT CASE WHEN old.size_ms < 3600000 THEN 1 ELSE 32 END AS days) span
        GROUP BY 1, 2, 3
    LOOP
        INSERT INTO window_spans VALUES (found.size_ms, found.begin_at, found.written_at);
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF metric_windows FOR VALUES FROM (%s, %L) TO (%s, %L)',
            format('metric_windows_%s_%s', found.size_ms, to_char(found.begin_at AT TIME ZONE 'UTC', 'YYYYMMDD')),
            found.size_ms, found.begin_at, found.size_ms, found.begin_at + make_interval(hours => 24 * found.days));
    END LOOP;
END $$;

INSERT INTO metric_windows SELECT window_id, start_at, size_ms, environment, model, version, component, partition,
    count, errors, revision, fields FROM metric_windows_before;
INSERT INTO metric_series (environment, model, version, component, partition, size_ms, first_at, end_at)
SELECT environment, model, version, component, partition, size_ms, min(start_at),
    max(start_at) + size_ms * interval '1 millisecond'
FROM metric_windows GROUP BY environment, model, version, component, partition, size_ms;

DROP TABLE metric_windows_before;
DROP TABLE window_days;

-- When a row was written, beside the time it tells of: history that is replayed today is kept as long as today's.

CREATE TABLE window_days (
    day        date        PRIMARY KEY,
    written_at timestamptz NOT NULL
);
INSERT INTO window_days
SELECT to_date(right(inhrelid::regclass::text, 8), 'YYYYMMDD'), now()
FROM pg_inherits WHERE inhparent = 'metric_windows'::regclass;

ALTER TABLE anomalies ADD COLUMN written_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE drift_events ADD COLUMN written_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE alerts ADD COLUMN written_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE retraining_requests ADD COLUMN written_at timestamptz NOT NULL DEFAULT now();

-- Pages, newest first; the id tells rows of the same moment apart.
CREATE INDEX anomalies_page ON anomalies (at DESC, anomaly_id DESC);
CREATE INDEX drift_events_page ON drift_events (at DESC, drift_id DESC);
CREATE INDEX retraining_requests_page ON retraining_requests (at DESC, request_id DESC);
DROP INDEX alerts_at;
CREATE INDEX alerts_page ON alerts (at DESC, alert_id DESC);

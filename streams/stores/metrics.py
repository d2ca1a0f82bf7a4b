"""What the sinks count."""

from prometheus_client import Counter, Gauge

RECORDS = Counter("sink_records", "Records written to a store", ["sink", "topic"])
BAD = Counter("sink_bad_records", "Records that could not be read, or that the store refuses for their content",
              ["sink", "topic"])
RETRIES = Counter("sink_retries", "Things tried again, as the store or the broker was away", ["sink"])
UP = Gauge("sink_up", "1 while the sink's store takes writes", ["sink"])
LAG = Gauge("sink_lag_records", "Records that are not in the store yet", ["sink", "topic"])
MEASURED = Gauge("sink_lag_measured_timestamp_seconds",
                 "When the broker told of the oldest of the ends that sink_lag_records counts to", ["sink"])

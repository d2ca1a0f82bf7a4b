"""Playing files (CSV, NDJSON, Parquet, npz) as telemetry."""

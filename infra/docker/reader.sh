#!/bin/sh
# Run once by the postgres image, when the database is made: the user with which Grafana reads, and may only read.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$READER_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE streamgauge_reader LOGIN PASSWORD :'password' NOSUPERUSER NOCREATEDB NOCREATEROLE CONNECTION LIMIT 10;
ALTER ROLE streamgauge_reader SET default_transaction_read_only = on;
ALTER ROLE streamgauge_reader SET statement_timeout = '30s';
GRANT pg_read_all_data TO streamgauge_reader;
SQL

#!/usr/bin/env bash
# Starts Apache Kafka on loopback and runs a command beside it; without one, until Ctrl-C. `run.sh --help` says more.
#   infra/kafka/run.sh                              a broker at 127.0.0.1:9092
#   infra/kafka/run.sh .venv/bin/streamgauge up     everything on Kafka instead of the embedded broker
set -euo pipefail
root="$(cd "$(dirname "$0")/../.." && pwd)"
"$root/infra/kafka/fetch.sh"
python="$root/.venv/bin/python"
[[ -x $python ]] || python=python3
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m infra.kafka.server "$@"

#!/usr/bin/env bash
# Copies Apache Kafka's jars, as pom.xml names them, to infra/kafka/lib. Does nothing when they are there.
# When they cannot be had: one line, exit code 1.
set -euo pipefail
cd "$(dirname "$0")"

cmp -s pom.xml lib/pom.xml && exit 0
if ! command -v mvn >/dev/null; then
    echo "Apache Kafka was not fetched: Maven (mvn) is not installed."
    exit 1
fi
rm -rf target && mkdir -p target
echo "Fetching Apache Kafka with Maven, once ..."
# To a file: Maven's colours break on a pipe that closes early.
if ! mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=target/lib >target/fetch.log 2>&1
then
    echo "Apache Kafka was not fetched: Maven cannot reach its registry, or failed (see infra/kafka/target/fetch.log)."
    exit 1
fi
cp pom.xml target/lib/pom.xml    # says, last of all, what the folder holds
rm -rf lib && mv target/lib lib

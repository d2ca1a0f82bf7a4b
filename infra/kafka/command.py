"""`python -m infra.kafka.server` (run.sh): a broker for people, alone or beside a command."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from infra.embedded.process import EmbeddedError, check_port
from infra.kafka.config import Security
from infra.kafka.server import KafkaServer
from streams.settings import PREFIX

#: Tells the tests which broker to use (tests/conftest.py).
TEST_URL = "STREAMGAUGE_TEST_KAFKA_URL"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the command's exit code; 0 after Ctrl-C; 1 if Kafka cannot run here."""
    options = _parser().parse_args(arguments)
    command: list[str] = options.command
    with tempfile.TemporaryDirectory(prefix="streamgauge-kafka-") as made:
        folder = options.data or Path(made)
        port = 9092 if options.port is None and not command else options.port or 0
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            if port:
                check_port(port, "--port")
            with KafkaServer(folder, port, security=options.security) as kafka:
                return _beside(kafka, command) if command else _wait(kafka)
        except EmbeddedError as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0


def environment(kafka: KafkaServer) -> dict[str, str]:
    """The settings of a client that is let in, as environment variables."""
    chosen = kafka.settings()
    found = {f"{PREFIX}KAFKA_URL": chosen.kafka_url}
    if kafka.door.security != "PLAINTEXT":
        found[f"{PREFIX}KAFKA_SECURITY_PROTOCOL"] = chosen.kafka_security_protocol
    if kafka.door.sasl:
        found[f"{PREFIX}KAFKA_SASL_USERNAME"] = chosen.kafka_sasl_username
        found[f"{PREFIX}KAFKA_SASL_PASSWORD"] = chosen.kafka_sasl_password.get_secret_value()
    if kafka.door.tls:
        found[f"{PREFIX}KAFKA_SSL_CAFILE"] = str(chosen.kafka_ssl_cafile)
    return found


def _beside(kafka: KafkaServer, command: list[str]) -> int:
    """Run the command. Ctrl-C reaches it too, and it is waited for, so that the broker outlives it."""
    extra = {TEST_URL: kafka.url} if kafka.door.security == "PLAINTEXT" else {}
    process = subprocess.Popen(command, env=os.environ | environment(kafka) | extra)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue
        except SystemExit:
            process.terminate()


def _wait(kafka: KafkaServer) -> int:
    print("Apache Kafka runs until Ctrl-C. For clients:")
    for name, value in environment(kafka).items():
        print(f"  export {name}={value}")
    print(f"Its data and log are in {kafka.folder}.", flush=True)
    code = kafka.process.wait() if kafka.process else 1
    print(f"Kafka ended by itself: {kafka.tail()}", file=sys.stderr)
    return code or 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.sh", description="Apache Kafka (KRaft, one node) on loopback, alone or beside a command, which gets "
        "STREAMGAUGE_KAFKA_URL and what else a client needs in its environment.")
    parser.add_argument("--port", type=int, help="default: 9092; any free one beside a command")
    parser.add_argument("--data", type=Path, help="folder to keep the log in; default: a temporary one")
    parser.add_argument("--security", choices=get_args(Security), default="PLAINTEXT", help="default: PLAINTEXT")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="run this, and stop Kafka when it ends")
    return parser

"""One Apache Kafka on loopback, as a context manager and as a command (see run.sh).

    with KafkaServer(folder) as kafka:
        await create_topics(kafka.settings())
        kafka.stop(); kafka.start()         # the same data, the same port
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import secrets
import shutil
import socket
import subprocess
import threading
import uuid
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from infra.embedded.process import EmbeddedError, Service, listens
from infra.kafka.config import Door, Security, properties, scram_arguments, text_of
from streams.kafka import client_options
from streams.settings import Settings

HERE = Path(__file__).resolve().parent
LIB = HERE / "lib"
HEAP = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC")
FORMAT_SECONDS = 60


class KafkaMissingError(EmbeddedError):
    """Java or Kafka's jars are not there; the text says how to get them."""

    code = "kafka_missing"


class KafkaServer(Service):
    """Broker and controller in one JVM. Its folder holds the log, so that a second start goes on from the first.

    `security` is the protocol for clients; with SASL (PLAIN, SCRAM-SHA-256 and -512) `username` and `password` let
    them in, with TLS the self-signed `certificate` does, which is made anew in each folder.
    """

    name = "kafka"

    def __init__(self, folder: Path, port: int = 0, log: Path | None = None, security: Security = "PLAINTEXT",
                 username: str = "streamgauge", password: str = "", client_certificate: bool = False) -> None:
        super().__init__(folder, port, log)
        self.certificate = self.folder / "certificate.pem"
        self.key = self.folder / "key.pem"
        self.door = Door(security, username, password or secrets.token_urlsafe(18), self.folder / "store.pem",
                         self.certificate, client_certificate)
        self._inner_ports: tuple[int, int] | None = None

    @property
    def url(self) -> str:
        """host:port for STREAMGAUGE_KAFKA_URL."""
        return f"127.0.0.1:{self.port}"

    def settings(self, **others: Any) -> Settings:
        """Settings of a client that is let in; `others` are added, and win."""
        mine: dict[str, Any] = {"kafka_url": self.url, "kafka_security_protocol": self.door.security}
        if self.door.sasl:
            mine |= {"kafka_sasl_username": self.door.username, "kafka_sasl_password": self.door.password}
        if self.door.tls:
            mine["kafka_ssl_cafile"] = self.certificate
        if self.door.client_certificate:
            mine |= {"kafka_ssl_certfile": self.certificate, "kafka_ssl_keyfile": self.key}
        return Settings(**(mine | others))

    def launch(self) -> None:
        java = find_java()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or quiet_port()
        self._inner_ports = self._inner_ports or (quiet_port(), quiet_port())
        if self.door.tls and not self.certificate.exists():
            self._make_certificate()
        config, data = self.folder / "server.properties", self.folder / "data"
        _write_secret(config, text_of(properties(self.door, (self.port, *self._inner_ports), data)))
        command = [java, *HEAP, f"-Dlog4j2.configurationFile={HERE / 'log4j2.xml'}", "-cp", f"{LIB}/*"]
        if not (data / "meta.properties").exists():
            self._format([*command, "kafka.tools.StorageTool"], config)
        self.spawn([*command, "kafka.Kafka", str(config)])

    def answers(self) -> bool:
        """True once it takes part in its own cluster: asked as a client would, with the client's protocol."""
        return listens(self.port) and _in_thread(self._registered)

    async def _registered(self) -> bool:
        admin = AIOKafkaAdminClient(**client_options(self.settings()), request_timeout_ms=5_000)
        try:
            await admin.start()
            return len((await admin.describe_cluster())["brokers"]) == 1
        except (KafkaError, OSError):
            return False
        finally:
            await admin.close()

    def _format(self, tool: list[str], config: Path) -> None:
        arguments = self.folder / "format.arguments"      # in a file: a command line shows to everyone
        _write_secret(arguments, "\n".join(["-t", cluster_id(), "-c", str(config), *scram_arguments(self.door)]))
        try:
            done = subprocess.run([*tool, "format", f"@{arguments}"], capture_output=True, text=True, check=False,
                                  timeout=FORMAT_SECONDS)
        finally:
            arguments.unlink()
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip() and line[0] != "\t"]
            raise EmbeddedError(f"Kafka's storage in {self.folder} cannot be formatted: "
                                f"{(lines or ['it wrote nothing'])[-1][:300]}.")

    def _make_certificate(self) -> None:
        openssl = shutil.which("openssl")
        if openssl is None:
            raise KafkaMissingError("TLS needs the openssl command; install it, or take another --security.")
        subprocess.run([openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout",
                        str(self.key), "-out", str(self.certificate)], check=True, capture_output=True)
        assert self.door.store is not None
        _write_secret(self.door.store, self.key.read_text() + self.certificate.read_text())


def find_java() -> str:
    """The java that runs Kafka.

    Raises:
        KafkaMissingError: there is none, or Kafka's jars are missing.
    """
    if not (LIB / "pom.xml").exists():
        raise KafkaMissingError("Apache Kafka's jars are not here; infra/kafka/fetch.sh gets them with Maven.")
    java = shutil.which("java")
    if java is None:
        raise KafkaMissingError("Apache Kafka needs Java 17 or later; install it (Debian, Ubuntu: apt install "
                                "default-jre-headless).")
    return java


def cluster_id() -> str:
    """A new cluster's id, made as Kafka makes its own: one that begins with a dash would be taken for an option."""
    while True:
        found = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not found.startswith("-"):
            return found


def quiet_port() -> int:
    """A free loopback port below those that the kernel hands out to clients.

    While a broker is down for a restart, clients go on connecting to its port; from the kernel's own range one of them
    could be given that very port, and would then talk to itself and keep the broker from coming back.
    """
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def _in_thread(ask: Any) -> bool:
    """Run a coroutine function in a loop of its own, whether or not this thread has one running."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(ask())), daemon=True)
    thread.start()
    thread.join()
    return found == [True]


def _write_secret(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)


if __name__ == "__main__":
    from infra.kafka.command import main
    raise SystemExit(main())

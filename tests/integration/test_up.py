"""`streamgauge up` as people run it: it comes up, heals, refuses a second one, and leaves no process behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT, produce, until

from infra.cli import running
from infra.embedded.process import alive
from streams.settings import PREFIX, Settings

START_S = 90.0


class Up:
    """A running `streamgauge up --plain --no-demo`, and the commands beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder.parent / f"{folder.name}.out"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        self.environment = clean | {f"{PREFIX}DATA_DIR": str(folder), f"{PREFIX}PORT": "0",
                                    f"{PREFIX}WORKER_PORT": "0", f"{PREFIX}PARTITIONS": "2"}
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(self.command("up", "--plain", "--no-demo"), cwd=ROOT,
                                            env=self.environment, stdout=out, stderr=out, start_new_session=True)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "infra.cli.main", *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another command, in another terminal; no port is given, so that it finds the running ones."""
        own = {name: value for name, value in self.environment.items() if not name.endswith("PORT")}
        return subprocess.run(self.command(*arguments), cwd=ROOT, env=own, capture_output=True, text=True, timeout=60,
                              check=False)

    def text(self) -> str:
        return self.output.read_text()

    def says(self, pattern: str) -> re.Match[str]:
        found: re.Match[str] = until(lambda: re.search(pattern, self.text()) or self.process.poll() is not None,
                                     START_S, f"{pattern} ({self.output})")
        assert isinstance(found, re.Match), self.text()
        return found

    def pids(self) -> dict[str, int]:
        return {path.stem: int(path.read_text()) for path in self.folder.glob("*/*.pid")
                if path.stem != "postmaster"}


def get(url: str, token: str = "") -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    for part in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        part.chmod(0o755)
    run = Up(tmp_path / "data")
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
        run.process.wait()


async def test_a_run_from_its_first_line_to_its_last(up: Up) -> None:
    up.says("worker-1 is ready")
    page = up.says(r"page +(http://\S+)")[1]
    token = up.says(r"token +(\S+) +\(made now")[1]
    assert (up.folder / "token").read_text() == token

    variables = running.found(up.folder)
    chosen = Settings(kafka_url=variables["STREAMGAUGE_KAFKA_URL"], partitions=2)
    now = int(up.folder.stat().st_mtime * 1000)
    event = {"event_id": "e1", "ts": now, "environment": "prod", "model": "churn", "version": "3"}
    await produce(chosen, "telemetry", [event, event | {"event_id": "e2", "version": 3}, b"not json"])

    def listed() -> list[dict[str, object]]:
        return [json.loads(line) for line in up.run("rejected", "list", "--json").stdout.splitlines()]

    until(lambda: len(listed()) == 2, 30, "both bad records are kept")
    shown = up.run("rejected", "list")
    assert "not_json" in shown.stdout
    assert "2 refused records" in shown.stdout
    dry = up.run("rejected", "replay", "--model", "churn", "--set", 'version="3"', "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, "Would send 1 records again.\n"), dry
    sent = up.run("rejected", "replay", "--model", "churn", "--set", 'version="3"')
    assert sent.stdout == "Sent 1 records again: 1 to telemetry.\n", sent
    useless = up.run("rejected", "replay", "--reason", "not_json")
    assert useless.returncode == 1
    assert "would be refused again: not_json" in useless.stderr
    worker = up.says(r"worker-1 is ready: (\S+)")[1]

    until(lambda: "streamgauge_events_total 2.0" in get(f"{worker}/metrics"), 30, "the mended record is counted")
    assert json.loads(get(f"{page}/api/incidents?state=open", token)) == []
    until(lambda: 'sink_up{sink="push"} 1.0' in get(f"{worker}/metrics"), 30, "the worker can push")
    assert len(json.loads(get(f"{page}/api/push/key", token))["key"]) == 87, "gateway and worker have one key"
    topics = up.run("topics", "describe", "telemetry", "--json")
    assert sum(json.loads(line)["next"] for line in topics.stdout.splitlines()) == 4

    second = up.run("up", "--plain")
    assert (second.returncode, second.stderr.count("\n")) == (1, 1), second
    assert f"process {up.process.pid}" in second.stderr

    pids = up.pids()
    assert set(pids) == {"broker", "valkey", "postgres", "worker-1", "gateway"}
    os.kill(pids["worker-1"], signal.SIGKILL)
    up.says(r"worker-1 ended \(killed by SIGKILL\), again in 1 s")
    up.says(r"worker-1 is started again")
    pids |= up.pids()

    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(60) == 0, up.text()
    assert "Stopped; no process is left." in up.text()
    assert [name for name, pid in pids.items() if alive(pid)] == []
    assert not (up.folder / running.FILE).exists()
    logs = "".join(path.read_text(errors="replace") for path in (up.folder / "logs").iterdir())
    assert token not in logs and (up.folder / "push-key").read_text() not in logs


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children with their parent on Linux")
def test_kill_9_leaves_no_process_and_the_same_folder_can_be_used_at_once(up: Up) -> None:
    up.says("gateway is ready")
    pids = up.pids()
    assert len(pids) == 5
    up.process.kill()
    up.process.wait()
    until(lambda: not any(alive(pid) for pid in pids.values()), 10, "every child is gone")
    again = Up(up.folder)
    try:
        until(lambda: again.text().count("gateway is ready") == 2, START_S, "up again")
        again.process.send_signal(signal.SIGINT)
        assert again.process.wait(60) == 0
    finally:
        if again.process.poll() is None:
            again.process.kill()
        again.process.wait()


def test_a_taken_port_is_one_sentence_and_starts_nothing(tmp_path: Path, unused_listener: int) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    done = subprocess.run([sys.executable, "-m", "infra.cli.main", "up", "--plain"], cwd=ROOT, capture_output=True,
                          text=True, timeout=60, check=False,
                          env=environment | {f"{PREFIX}DATA_DIR": str(tmp_path), f"{PREFIX}PORT": str(unused_listener)})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert f"Port {unused_listener} is taken" in done.stderr
    assert "STREAMGAUGE_PORT" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"lock"}


@pytest.fixture
def unused_listener() -> Iterator[int]:
    """A port that somebody listens on."""
    import socket
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]

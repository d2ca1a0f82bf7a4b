"""The command line as people meet it: help, exit codes, one sentence for an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from support import ROOT, free_port
from typer.testing import CliRunner

from infra.cli import running
from infra.cli.main import AWAY, FAILED, ROOMS, USAGE, app, exit_code, sentence
from infra.embedded.process import PortTakenError
from infra.embedded.services import only_one
from streams.kafka import KafkaSetupError
from streams.settings import PREFIX, Settings, settings

RUN = CliRunner()


@pytest.fixture(autouse=True)
def fresh_settings() -> Iterator[None]:
    """What a test puts into the environment is read by it, and by no later one."""
    settings.cache_clear()
    yield
    settings.cache_clear()


def shell(*arguments: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """`streamgauge ARGUMENTS` as a process, with these settings alone."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return subprocess.run([sys.executable, "-m", "infra.cli.main", *arguments], cwd=cwd, env=clean | variables,
                          capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_command_and_the_exit_codes() -> None:
    text = RUN.invoke(app, ["--help"], terminal_width=200).output
    for name in ROOMS:
        assert f" {name} " in text
    for part in ("0 done", "1 failed", "2 wrong usage", "3 a service is away", "streamgauge settings"):
        assert part in " ".join(text.split())


def test_help_imports_none_of_the_heavy_packages() -> None:
    heavy = "faust numba sklearn pandas aiokafka fastapi asyncpg river pyarrow"
    done = subprocess.run([sys.executable, "-c", "import sys; from typer.testing import CliRunner; "
                           "from infra.cli.main import app; assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
                           f"print([name for name in '{heavy}'.split() if name in sys.modules])"],
                          cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [[name] for name in ROOMS if name != "version"]
                         + [["topics", name] for name in ("list", "create", "describe")]
                         + [["rejected", name] for name in ("list", "replay")]
                         + [["alerts", name] for name in ("tail", "list", "ack", "note", "silence", "silences",
                                                         "unsilence", "groups")]
                         + [["rules", name] for name in ("show", "apply", "try", "check")]
                         + [["tokens", name] for name in ("create", "list", "revoke")], ids=" ".join)
def test_every_command_has_help(arguments: list[str]) -> None:
    answer = RUN.invoke(app, [*arguments, "--help"])
    assert answer.exit_code == 0, answer.output
    assert "Usage" in answer.output


@pytest.mark.parametrize("arguments", [["nope"], ["topics", "nope"], ["schemas", "--nope"], ["up", "--workers", "0"],
                                       ["topics", "describe", "nope"], ["rejected", "list", "--reason", "nope"],
                                       ["rejected", "replay", "--set", "nope"],
                                       ["rejected", "list", "--since", "yesterday"]], ids=" ".join)
def test_wrong_usage_is_2(arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STREAMGAUGE_DATA_DIR", str(tmp_path))
    assert RUN.invoke(app, arguments).exit_code == USAGE


def test_the_version_is_a_command_and_an_option() -> None:
    (command, option) = (RUN.invoke(app, [word]) for word in ("version", "--version"))
    assert command.exit_code == option.exit_code == 0
    assert command.output == option.output != ""


def test_a_setting_that_is_wrong_is_named_in_one_line(tmp_path: Path) -> None:
    done = shell("topics", "list", STREAMGAUGE_PORT="many", STREAMGAUGE_DATA_DIR=str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (USAGE, 1)
    assert "STREAMGAUGE_PORT" in done.stderr


def test_no_broker_is_3_and_one_line(tmp_path: Path) -> None:
    for variables in ({}, {"STREAMGAUGE_KAFKA_URL": f"127.0.0.1:{free_port()}"}):
        done = shell("topics", "create", STREAMGAUGE_DATA_DIR=str(tmp_path), **variables)
        assert (done.returncode, done.stderr.count("\n")) == (AWAY, 1), done.stderr
        assert "STREAMGAUGE_KAFKA_URL" in done.stderr


def test_a_gateway_without_stores_says_which_setting_is_missing(tmp_path: Path) -> None:
    done = shell("gateway", STREAMGAUGE_DATA_DIR=str(tmp_path))
    assert done.returncode == AWAY
    assert "STREAMGAUGE_REDIS_URL" in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = shell("topics", "create", STREAMGAUGE_DATA_DIR=str(tmp_path), STREAMGAUGE_LOG_LEVEL="debug")
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("error", "code", "says"), [
    (KafkaSetupError("no broker answers"), AWAY, "no broker answers"),
    (ConnectionRefusedError(111, "refused"), AWAY, "does not answer"),
    (PortTakenError("Port 1 is taken"), FAILED, "Port 1 is taken"),
    (ModuleNotFoundError("x", name="sklearn"), FAILED, "make clean run"),
    (ValueError("two\nlines"), FAILED, "ValueError: two lines"),
])
def test_errors_become_a_sentence_and_a_code(error: Exception, code: int, says: str) -> None:
    assert exit_code(error) == code
    assert says in sentence(error)
    assert "\n" not in sentence(error)


def test_a_wrong_setting_is_usage() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(partitions=0)
    assert exit_code(caught.value) == USAGE
    assert "STREAMGAUGE_PARTITIONS" in sentence(caught.value)


@pytest.mark.parametrize(("name", "value"), [
    ("group", ""), ("group", "a b"), ("topic_prefix", "a/"), ("otlp_topic", "a b"), ("watermark_delay_ms", 10**20),
    ("grace_ms", 2**63 - 1), ("label_grace_ms", 2**63 - 1), ("idle_ms", 10**20), ("max_ahead_ms", 2**63 - 1),
    ("max_age_ms", 10**20), ("sketch_values", 10**20), ("granularities_ms", "1000,10000000000000000000000")])
def test_what_a_worker_could_not_run_with_is_refused_before_it_starts(name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**{name: value})
    assert f"STREAMGAUGE_{name.upper()}: " in sentence(caught.value)


def test_a_worker_says_which_folder_it_cannot_have(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    done = shell("worker", STREAMGAUGE_DATA_DIR=str(taken), STREAMGAUGE_KAFKA_URL="127.0.0.1:1",
                 STREAMGAUGE_WORKER_PORT="0")
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert str(taken) in done.stderr and "STREAMGAUGE_DATA_DIR" in done.stderr


@pytest.mark.parametrize("names", ["foo", "river.Nope", "half_space_trees,half_space_trees"])
def test_a_worker_says_which_detectors_there_are(names: str, tmp_path: Path) -> None:
    done = shell("worker", STREAMGAUGE_DETECTORS=names, STREAMGAUGE_KAFKA_URL="127.0.0.1:1",
                 STREAMGAUGE_DATA_DIR=str(tmp_path), STREAMGAUGE_WORKER_PORT="0")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert "STREAMGAUGE_DETECTORS: " in done.stderr and "detector" in done.stderr and "Traceback" not in done.stderr


def test_settings_are_listed_with_defaults_and_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGAUGE_DATABASE_URL", "postgresql://u:hunter2@h/d")
    monkeypatch.setenv("STREAMGAUGE_PARTITIONS", "7")
    text = RUN.invoke(app, ["settings"]).output
    lines = [json.loads(line) for line in RUN.invoke(app, ["settings", "--json"]).output.splitlines()]
    changed = RUN.invoke(app, ["settings", "--changed", "--json"]).output
    assert "hunter2" not in text + str(lines)
    assert len(lines) == len(Settings.model_fields)
    assert all(line["meaning"] for line in lines)
    assert {"variable": "STREAMGAUGE_PARTITIONS", "value": "7", "default": "4"}.items() <= \
        next(line for line in lines if line["variable"] == "STREAMGAUGE_PARTITIONS").items()
    assert {json.loads(line)["variable"] for line in changed.splitlines()} >= {"STREAMGAUGE_DATABASE_URL",
                                                                            "STREAMGAUGE_PARTITIONS"}


def test_topics_are_listed_without_a_broker() -> None:
    rows = [json.loads(line) for line in RUN.invoke(app, ["topics", "list", "--json"]).output.splitlines()]
    assert {row["name"] for row in rows} >= {"telemetry", "telemetry-rejected", "alerts"}
    assert "telemetry-rejected" in RUN.invoke(app, ["topics", "list"]).output


class TestJoiningARunningUp:
    """Other commands use the services of a running `up` where their settings name none."""

    @pytest.fixture(autouse=True)
    def alone(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in running.SERVICES:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        monkeypatch.setenv("STREAMGAUGE_DATA_DIR", str(tmp_path))

    def test_while_it_runs(self, tmp_path: Path) -> None:
        with only_one(tmp_path), running.told(tmp_path, {"STREAMGAUGE_KAFKA_URL": "127.0.0.1:7"}):
            assert (tmp_path / running.FILE).stat().st_mode & 0o777 == 0o600
            running.join()
            assert settings().kafka_url == "127.0.0.1:7"
        assert not (tmp_path / running.FILE).exists()

    def test_not_what_a_killed_one_left(self, tmp_path: Path) -> None:
        (tmp_path / "lock").touch()
        (tmp_path / running.FILE).write_text('{"STREAMGAUGE_KAFKA_URL": "127.0.0.1:7"}')
        assert running.found(tmp_path) == {}

    def test_not_against_ones_own_settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STREAMGAUGE_KAFKA_URL", "kafka.example:9092")
        with only_one(tmp_path), running.told(tmp_path, {"STREAMGAUGE_KAFKA_URL": "127.0.0.1:7",
                                                         "STREAMGAUGE_REDIS_URL": "redis://127.0.0.1:8"}):
            running.join()
            assert os.environ["STREAMGAUGE_KAFKA_URL"] == "kafka.example:9092"
            assert "STREAMGAUGE_REDIS_URL" not in os.environ

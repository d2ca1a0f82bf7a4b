"""The live view: every size of terminal, everything unknown, and hostile text."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from rich.console import Console

from infra.cli.live import Frame, Process, age, clean, curve, number, render, uptime
from infra.cli.sight import Sight

NOW = 1_795_486_657_000
FRAME = Frame(
    page="http://127.0.0.1:8700", metrics=["http://127.0.0.1:8701/metrics", "http://127.0.0.1:8700/metrics"],
    token="in .streamgauge/token", data_dir=".streamgauge",
    processes=[Process("worker-1", "ready"), Process("gateway", "ready"), Process("demo", "running", 2)])
TITLES = (
    ("error_rate", "critical", "escalated", "prod/phishing-filter: 52% of requests fail (limit 5%)"),
    ("drift", "warning", "open", "prod/scene-labels preprocess: feature vegde-sd rose from 2 to 17.03"),
    ("anomaly_rate", "critical", "open", "prod/phishing-filter: feature anchor_from_other_domain missing in 52%"),
    ("latency", "warning", "open", "staging/digits ranker: 41 ms a request, usually 4.2 ms"),
    ("silence", "info", "resolved", "staging/wine: resolved after 3 min: events are back"),
)


def alert(index: int, cause: str, severity: str, state: str, title: str) -> dict[str, Any]:
    environment, _, model = title.split(":")[0].split(" ")[0].partition("/")
    return {"alert_id": f"a{index}", "cause": cause, "severity": severity, "state": state, "title": title,
            "environment": environment, "model": model, "ts": NOW - 20_000 * index,
            "published_ms": NOW - 15_000 * index}


def full(models: int = 8) -> Sight:
    rows = [alert(index, *parts) for index, parts in enumerate(itertools.chain(TITLES, TITLES, TITLES))]
    names = ("phishing-filter", "scene-labels", "shuttle-valves", "digits", "wine", "tumours", "credit", "churn")
    return Sight(
        uptime_s=3_725.0, now_ms=NOW, events_per_s=11_843.2, history=tuple(float(i % 17) for i in range(120)),
        events=4_210_533.0, lag=12.0, rejected=1_000.0, rejected_most="not_json", windows=19_290.0, anomalies=5_921.0,
        alerts_total=61.0, delay_s=0.94, checkpoint_ms=39.6,
        incidents=[row for row in rows if row["state"] != "resolved"],
        alerts=rows, models=[{"environment": "prod" if index % 2 else "staging", "model": names[index % 8],
                              "versions": ["v1", "v2"], "components": ["model", "preprocess"],
                              "events": 1_234 * index, "errors": index} for index in range(models)],
        ready={"http://127.0.0.1:8701": True})


def drawn(sight: Sight, width: int, height: int, frame: Frame = FRAME) -> list[str]:
    console = Console(width=width, height=height, record=True, force_terminal=True, color_system=None, file=None,
                      legacy_windows=False)
    with console.capture() as captured:
        console.print(render(sight, frame, width, height))
    return captured.get().rstrip("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (120, 32), (160, 48), (220, 60)])
@pytest.mark.parametrize("sight", [Sight(), full(), full(0), full(300)], ids=["nothing", "full", "no models", "many"])
def test_the_view_fits_the_terminal(sight: Sight, width: int, height: int) -> None:
    lines = drawn(sight, width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_at_80_by_24_it_shows_figures_incidents_alerts_models_and_addresses() -> None:
    text = "\n".join(drawn(full(), 80, 24))
    for part in ("11,843", "4.21M", "Open incidents (12)", "52% of requests fail", "error_rate", "15 s",
                 "staging/phishing-filter v1, v2", "http://127.0.0.1:8700 ", "/api/docs", "http://127.0.0.1:8701/metrics",
                 ".streamgauge/token", "alerts tail", "demo running (2 restarts)", "Ctrl-C", "up 1:02:05"):
        assert part in text, part


def test_what_is_unknown_is_a_dash_and_never_a_zero() -> None:
    lines = drawn(Sight(), 80, 24)
    assert lines[1].split()[1:-1] == ["–"] * 8
    assert "the gateway does not answer yet" in "\n".join(lines)


def test_no_open_incident_is_said() -> None:
    assert "none" in "\n".join(drawn(Sight(incidents=[], alerts=[], models=[]), 80, 24))


def test_a_tall_terminal_gets_the_curve_and_the_table_of_models() -> None:
    text = "\n".join(drawn(full(), 120, 45))
    assert "█" in text
    assert "components" in text
    assert "not_json" in text


def test_a_terminal_too_small_for_it_all_does_not_crash_it() -> None:
    for width, height in ((20, 5), (40, 10), (1, 1)):
        assert drawn(full(), width, height)


def test_text_from_the_network_cannot_steer_the_terminal() -> None:
    rows = [{"title": "\x1b[2Jprod/\nx [bold]y[/]", "state": "open", "severity": "critical", "cause": "\x07",
             "published_ms": NOW}]
    text = "\n".join(drawn(Sight(now_ms=NOW, incidents=rows, alerts=rows, models=[{"model": "\x9b31m"}]), 80, 24))
    assert not {"\x1b", "\x07", "\x9b"} & set(text)
    assert "[bold]y[/]" in text, "what looks like markup is shown, not obeyed"


def test_rows_without_their_fields_are_drawn_all_the_same() -> None:
    assert drawn(Sight(incidents=[{}], alerts=[{}, {}], models=[{}, {"versions": None, "events": None}]), 80, 24)
    assert drawn(Sight(incidents=[{}], alerts=[{}], models=[{}] * 3), 120, 40)


def test_the_last_note_is_shown() -> None:
    frame = Frame(page="p", metrics=[], token="t", data_dir="d", notes=["worker-1 is started again.", "gateway ended"])
    assert any("gateway ended" in line for line in drawn(Sight(), 80, 24, frame))


@pytest.mark.parametrize(("value", "text"), [
    (None, "–"), (float("nan"), "–"), (0, "0"), (3.26, "3.3"), (12.6, "13"), (99_999, "99,999"), (123_456, "123k"),
    (999_999, "1,000k"), (4_210_533, "4.21M"), (123_456_789, "123M"), (7.5e9, "7.5G")])
def test_numbers_keep_to_a_few_characters(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(("ms", "text"), [
    (-5, "now"), (900, "now"), (45_000, "45 s"), (119_000, "119 s"), (180_000, "3 min"), (7_200_000, "2 h"),
    (4 * 86_400_000, "4 d")])
def test_ages_are_short(ms: float, text: str) -> None:
    assert age(ms) == text


def test_small_helpers_say_what_they_should() -> None:
    assert uptime(3_725) == "1:02:05"
    assert curve([0, 1, 2, 4], 3) == "▃▅█"
    assert curve([0, 0], 5) == "▁▁"
    assert clean("a\tb\x00") == "a·b·"

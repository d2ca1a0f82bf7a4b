"""Silence: by the partition's event clock, and by the wall clock of a worker that listens."""

from alert_world import ORIGIN_MS, World, window

from agents.alerts.engine import AlertOptions
from agents.alerts.options import KNOWN_PAUSES, STALL_MS
from agents.alerts.silence import limit_ms, note_gap, usual_gap_ms
from agents.alerts.state import Pauses
from schemas.alerts import Alert

STEP_MS = STALL_MS // 2


def wait(world: World, wall_ms: int, for_ms: int) -> list[Alert]:
    """Ticks in steps, from `wall_ms` on."""
    return [alert for at in range(wall_ms, wall_ms + for_ms + 1, STEP_MS) for alert in world.tick(at)]


def test_a_model_that_is_not_heard_of_for_a_minute_is_silent_until_events_return() -> None:
    world = World()
    world.calm(0, 40)
    assert wait(world, 0, 60_000) == []
    [opened] = wait(world, 60_000 + STEP_MS, 0)
    assert (opened.state, opened.cause, opened.severity) == ("open", "silence", "critical")
    assert opened.title == "prod/churn: silent for 60 s (usually something every 1 s)"
    assert (opened.onset_ms, opened.ts) == (ORIGIN_MS + 40_000, ORIGIN_MS + 100_000)
    assert wait(world, 90_000, 600_000) == [], "told once"
    [resolved] = world.calm(800, 801)
    assert (resolved.state, resolved.incident_id) == ("resolved", opened.incident_id)
    assert resolved.ts == ORIGIN_MS + 800_000


def test_other_models_of_the_partition_are_a_clock() -> None:
    world = World()
    world.calm(0, 40)
    world.calm(0, 100, model="other")
    assert world.tick(0) == []
    world.calm(100, 102, model="other")
    assert [alert.model for alert in world.tick(1)] == ["churn"]


def test_a_model_that_has_shown_little_of_itself_is_never_silent() -> None:
    world = World()
    world.calm(0, 29)
    assert wait(world, 0, 600_000) == []


def test_the_downtime_of_the_worker_is_no_silence() -> None:
    world = World()
    world.calm(0, 40)
    world.states.written(world.states.freeze(1))
    restarted = World(rows=dict(world.rows))
    assert restarted.tick(10_000_000) == []
    assert wait(restarted, 10_000_000, 60_000) == []
    stalled = World()
    stalled.calm(0, 40)
    assert stalled.tick(0) == []
    assert stalled.tick(STALL_MS + 1) == []
    assert wait(stalled, STALL_MS + 1, 60_000) == [], "a tick that comes late starts the waiting anew"
    assert len(wait(stalled, STALL_MS + 60_002, STEP_MS)) == 1


def test_a_restored_partition_has_no_event_clock_until_windows_are_read() -> None:
    """Rows of one snapshot may be of two ages after a crash; the clock comes from the log only."""
    world = World()
    world.calm(0, 40)
    world.calm(0, 200, model="other")
    world.states.written(world.states.freeze(1))
    restarted = World(rows=dict(world.rows))
    assert restarted.tick(0) == []
    restarted.deliver("metrics", [(40, window(39))])
    assert restarted.tick(1) == []


def test_pauses_that_are_usual_are_no_silence() -> None:
    """Bursts of ten windows every ten minutes."""
    world = World(AlertOptions(silence_ms=60_000))
    for burst in range(12):
        assert world.calm(burst * 600, burst * 600 + 10) == []
    assert usual_gap_ms(world.model().pauses) > 500_000
    assert wait(world, 0, 600_000) == []


def test_pauses_that_raised_an_alarm_three_times_are_known() -> None:
    pauses, options = Pauses(), AlertOptions()
    for _ in range(50):
        note_gap(pauses, 1_000, alarmed=False)
    for _ in range(KNOWN_PAUSES - 1):
        note_gap(pauses, 3_600_000, alarmed=True)
    assert limit_ms(pauses, options) == options.silence_ms
    note_gap(pauses, 3_600_000, alarmed=True)
    assert limit_ms(pauses, options) == 5_400_000


def test_silence_soon_after_silence_waits_for_the_cooldown() -> None:
    world = World(AlertOptions(cooldown_ms=300_000))
    world.calm(0, 40)
    wait(world, 0, 90_000)
    [resolved] = world.calm(200, 201)
    again = wait(world, 100_000, 400_000)
    assert [alert.state for alert in again] == ["open"]
    assert again[0].opened_ms == resolved.ts + 300_000


def test_a_model_gone_for_a_day_is_resolved_and_forgotten() -> None:
    world = World(AlertOptions(retire_ms=600_000))
    world.calm(0, 40)
    assert [alert.state for alert in wait(world, 0, 500_000)] == ["open"]
    assert [alert.state for alert in wait(world, 500_000 + STEP_MS, 200_000)] == ["resolved"]
    assert list(world.states.keys()) == []

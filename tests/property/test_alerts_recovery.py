"""Whatever the batches and the crashes, people are told a consistent story: each alert once, none lost."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from alert_world import ORIGIN_MS, TOPICS, Message, World, anomaly, drift, window
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.alerts.engine import AlertOptions
from schemas.alerts import Alert

OPTIONS = AlertOptions(cooldown_ms=8_000, accept_ms=60_000)
KINDS = ("calm", "odd", "failing", "slow", "slower", "drift", "recover", "gone")
Phases = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(3, 25)), min_size=2, max_size=7)
Logs = dict[str, list[Message]]


def script(phases: list[tuple[str, int]]) -> Logs:
    """The three topics of two models that go through the phases, the second in another order."""
    logs: Logs = {topic: [] for topic in TOPICS.values()}
    for model, order in (("churn", phases), ("fraud", phases[::-1])):
        second = 35
        calm(logs, model, 0, second)
        for kind, length in order:
            phase(logs, model, kind, second, length)
            second += length
    for topic in logs:
        logs[topic].sort(key=when)
    return logs


def when(message: Message) -> int:
    return getattr(message, "ts", 0) or getattr(message, "start_ms", 0) or getattr(message, "detected_ms", 0)


def calm(logs: Logs, model: str, first: int, last: int, latency: float = 5.0, errors: int = 0) -> None:
    logs["metrics"] += [window(second, count=30, latency=latency, errors=errors, model=model, version=version)
                        for second in range(first, last) for version in ("1", "2")]


def phase(logs: Logs, model: str, kind: str, first: int, length: int) -> None:
    last = first + length
    if kind in ("drift", "recover"):
        state = "drifted" if kind == "drift" else "recovered"
        logs["drift-events"] += [drift(first + step, f"feature.f{step}", state, model=model,
                                       severity="critical" if step else "warning") for step in range(2)]
    if kind == "odd":
        logs["anomalies"] += [anomaly(second, second * 100 + number, model=model)
                              for second in range(first, last) for number in range(4 + second % 20)]
    if kind != "gone":
        calm(logs, model, first, last, {"slow": 40.0, "slower": 90.0}.get(kind, 5.0), 9 if kind == "failing" else 0)


def with_repeats(logs: Logs, chance: random.Random) -> Logs:
    """What the topics look like if the agents before this one crashed: they say a stretch again, under new offsets."""
    out: Logs = {}
    for topic, messages in logs.items():
        if messages and chance.random() < 0.5:
            end = chance.randrange(len(messages) + 1)
            start = max(0, end - chance.randrange(1, 200))
            messages = messages[:end] + messages[start:]
        out[topic] = messages
    return out


@dataclass
class Run:
    """A worker over the logs, that dies now and then. `durable` and `committed` are all that survives.

    Topics are read in the order of event time, but for a share of `stray` batches.
    """

    logs: Logs
    chance: random.Random
    stray: float = 0.2
    told: list[Alert] = field(default_factory=list)
    durable: dict[str, bytes] = field(default_factory=dict)
    committed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOPICS.values(), 0))
    wall_ms: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.world = World(OPTIONS, dict(self.durable))
        self.read = dict(self.committed)

    def write(self, whole: bool = True) -> None:
        """A snapshot; of one that is cut short, a prefix is durable."""
        frozen = self.world.states.freeze(1)
        puts = frozen.puts
        self.durable.update(puts if whole else puts[:self.chance.randrange(len(puts) + 1)])
        self.world.states.written(frozen)

    def batch(self) -> bool:
        """Deliver some records of some topic. False at the end of all."""
        left = [topic for topic, messages in self.logs.items() if self.read[topic] < len(messages)]
        if not left:
            return False
        topic = min(left, key=lambda name: when(self.logs[name][self.read[name]]))
        if self.chance.random() < self.stray:
            topic = self.chance.choice(left)
        first = self.read[topic]
        last = min(len(self.logs[topic]), first + self.chance.choice((1, 7, 60)))
        self.world.deliver(topic, [(offset, self.logs[topic][offset]) for offset in range(first, last)])
        self.read[topic] = last
        return True

    def tell(self) -> None:
        """As the agent does: write, publish, take out."""
        states, engine = self.world.states, self.world.engine
        waiting = engine.outbox(states)
        if not waiting:
            return
        if self.chance.random() < 0.1:
            self.write(whole=False)
            self.start()
            return
        self.write()
        for alert in waiting:
            if self.chance.random() < 0.1:
                self.start()
                return
            self.told.append(alert)
        engine.published(states, [alert.alert_id for alert in waiting])

    def checkpoint(self) -> None:
        """Write, then commit."""
        read = dict(self.read)
        self.write()
        if self.chance.random() < 0.7:
            self.committed = read

    def go(self, crashes: int) -> Run:
        while self.batch():
            self.tell()
            self.wall_ms += self.chance.choice((100, 20_000))
            self.world.engine.tick(self.world.states, self.wall_ms)
            self.tell()
            if self.chance.random() < 0.3:
                self.checkpoint()
            elif crashes and self.chance.random() < 0.15:
                crashes -= 1
                self.start()
        self.chance = Certain()
        self.tell()
        return self


class Certain(random.Random):
    """Nothing unlikely happens any more."""

    def random(self) -> float:
        """Above every chance."""
        return 1.0


@settings(max_examples=60, deadline=None)
@given(Phases, st.integers(0, 2**32), st.integers(0, 6))
def test_after_any_crashes_each_incident_opens_may_escalate_and_resolves_at_most_once(
        phases: list[tuple[str, int]], seed: int, crashes: int) -> None:
    chance = random.Random(seed)
    run = Run(with_repeats(script(phases), chance), chance).go(crashes)
    story: dict[str, dict[str, Alert]] = defaultdict(dict)
    for alert in run.told:
        known = story[alert.incident_id].setdefault(alert.alert_id, alert)
        assert known == alert, "an id that is said again says the same"
    for alerts in story.values():
        told = [alert.state for alert in alerts.values()]
        assert told in (["open"], ["open", "escalated"], ["open", "resolved"], ["open", "escalated", "resolved"])
        times = [alert.ts for alert in alerts.values()]
        assert times == sorted(times)
        assert [alert_id.rsplit("-", 1)[1] for alert_id in alerts] == [str(number) for number in range(len(alerts))]
    nothing_is_lost(run, story)
    one_at_a_time(story)


def nothing_is_lost(run: Run, story: dict[str, dict[str, Alert]]) -> None:
    """What the state thinks that people know is what they were told."""
    open_now = {}
    for key in list(run.world.states.keys()):
        state = run.world.states.entry(key).state
        assert state.outbox == {}
        open_now |= {slot.incident.incident_id: slot.incident for slot in state.slots.values() if slot.incident}
    assert {incident for incident, alerts in story.items()
            if list(alerts.values())[-1].state != "resolved"} == set(open_now)
    for incident_id, incident in open_now.items():
        assert incident.transitions == len(story[incident_id])


def one_at_a_time(story: dict[str, dict[str, Alert]]) -> None:
    """Of one slot, an incident opens after the one before it has resolved."""
    slots: dict[str, list[list[Alert]]] = defaultdict(list)
    for incident_id, alerts in story.items():
        slots[incident_id.rsplit("-", 1)[0]].append(list(alerts.values()))
    for incidents in slots.values():
        incidents.sort(key=lambda alerts: alerts[0].opened_ms)
        for before, after in pairwise(incidents):
            assert before[-1].state == "resolved"
            assert before[-1].ts < after[0].opened_ms


@settings(max_examples=30, deadline=None)
@given(Phases, st.integers(0, 2**32))
def test_where_batches_are_cut_changes_nothing(phases: list[tuple[str, int]], seed: int) -> None:
    chance = random.Random(seed)
    merged = sorted((message for messages in with_repeats(script(phases), chance).values() for message in messages),
                    key=when)
    single, cut = World(OPTIONS), World(OPTIONS)
    one_by_one = [alert for message in merged for alert in single.feed(message)]
    in_batches: list[Alert] = []
    while merged:
        topic, size = TOPICS[type(merged[0])], chance.randrange(1, 100)
        run = next((at for at, message in enumerate(merged[:size]) if TOPICS[type(message)] != topic),
                   min(size, len(merged)))
        first = cut.offsets[topic]
        cut.deliver(topic, list(enumerate(merged[:run], first)))
        cut.offsets[topic] = first + run
        in_batches += cut.publish()
        del merged[:run]
    by_model = {model: [alert for alert in one_by_one if alert.model == model] for model in ("churn", "fraud")}
    assert by_model == {model: [alert for alert in in_batches if alert.model == model] for model in by_model}
    for model in by_model:
        assert single.model(model=model) == cut.model(model=model)


def test_the_scripted_run_does_what_the_properties_are_about() -> None:
    """Without this, the properties could hold because nothing ever happens."""
    phases = [("odd", 25), ("calm", 25), ("slow", 10), ("slower", 10), ("calm", 25), ("drift", 5), ("recover", 9),
              ("calm", 40)]
    run = Run(script(phases), random.Random(7), stray=0.0).go(3)
    told = {(alert.cause, alert.state) for alert in run.told}
    assert {("anomaly_rate", "open"), ("anomaly_rate", "resolved"), ("latency", "open"), ("latency", "escalated"),
            ("latency", "resolved"), ("drift", "open")} <= told
    assert min(alert.ts for alert in run.told) >= ORIGIN_MS

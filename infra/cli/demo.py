"""`streamgauge demo`: run the demo fleet against a pipeline; with --score, say how well the pipeline did."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from infra.cli.duration import parse_ms
from infra.demo.collect import Collector, settle
from infra.demo.run import Pace, publish
from infra.demo.run import Progress as Where
from infra.demo.score import Score, score
from infra.demo.truth import FILE, GroundTruth
from infra.publisher import Publisher
from infra.reached import newest_ms, too_late_before_ms
from schemas.base import iso
from streams import page
from streams.kafka import create_topics
from streams.settings import Settings, settings

LINE_EVERY_S = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STDERR = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line said."""

    rate: float
    duration_ms: int | None
    speed: float
    seed: int
    incidents: bool
    score: bool
    json: bool
    quiet: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave."""

    where: Where
    pace: Pace
    truth: GroundTruth
    score: Score | None
    caught_up: bool


def command(
    rate: Annotated[float, typer.Option(min=1.0, help="Events of the whole fleet per second of event time.")] = 120.0,
    duration: Annotated[str | None, typer.Option(help="Length of the run on the wall clock: 90s, 10m. "
                                                      "Default: until Ctrl-C.")] = None,
    speed: Annotated[float, typer.Option(min=1.0, help="Event seconds per wall second. Event time then starts in the "
                                                       "past and ends now; an endless run starts so far back that it "
                                                       "catches up after an hour and goes on at speed 1. On two "
                                                       "cores keep it at 30 or less: above, the neighbours of the "
                                                       "serving thread show in the latency it measures.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same events and incidents, but for "
                                                  "measured latency.")] = 42,
    incidents: Annotated[bool, typer.Option(help="Disturb the models on the scripted schedule.")] = True,
    with_score: Annotated[bool, typer.Option("--score", help="Wait for the pipeline, then compare its alerts with the "
                                                             "truth. Needs --duration.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Run a fleet of real models that publish telemetry, with scripted incidents.

    Seven models (scikit-learn, on data inside scikit-learn and River) are trained at start and serve held-out rows.
    latency_ms is the CPU time of the serving thread. The truth about the incidents goes to
    demo/ground-truth.ndjson in the data folder. Accelerated runs need a pipeline that has not seen later events of
    these models: for it they would be late.
    """
    try:
        length = parse_ms(duration) if duration else None
    except ValueError as error:
        raise _usage(str(error)) from None
    if with_score and length is None:
        raise _usage("--score needs --duration: a score is of a run that ends")
    options = Options(rate, length, speed, seed, incidents, with_score, as_json, quiet)
    raise typer.Exit(_run(settings(), options))


def _usage(text: str) -> typer.Exit:
    _STDERR.print(f"demo: {text}", style="red", markup=False)
    return typer.Exit(2)


def _run(configured: Settings, options: Options) -> int:
    """Start a pipeline if a score is wanted and none is configured, run, report; the exit code."""
    with contextlib.ExitStack() as stack:
        if options.score and not configured.kafka_url:
            from infra.demo.pipeline import own_pipeline

            configured = stack.enter_context(own_pipeline(configured, _say(options)))
        outcome = asyncio.run(run(configured, options))
    report(outcome, options)
    return 0 if outcome.caught_up else 1


@contextlib.asynccontextmanager
async def _page(configured: Settings, say: Any) -> AsyncIterator[None]:
    """The fleet's own /metrics, /healthz and /readyz; the demo goes on without them if their port is taken."""
    try:
        runner, port = await page.serve(configured.host, configured.demo_port, list)
    except OSError as error:
        say(f"no metrics page: {error}; STREAMGAUGE_DEMO_PORT chooses another port")
        yield
        return
    say(f"metrics: http://{configured.host}:{port}/metrics")
    try:
        yield
    finally:
        await runner.cleanup()


def _say(options: Options) -> Any:
    return (lambda text: None) if options.quiet else (lambda text: _STDERR.print(f"demo: {text}", markup=False))


async def run(configured: Settings, options: Options) -> Outcome:
    """Train, publish until the end or Ctrl-C, and collect the score if one is wanted."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from infra.demo.fleet import Fleet
    from infra.demo.models import train_all

    say, stop = _say(options), asyncio.Event()
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await create_topics(configured)
    threadpool_limits(1)  # CPU time of one thread is then all the CPU time there is
    started = time.perf_counter()
    models = train_all(options.seed)
    say(f"{len(models)} models trained in {time.perf_counter() - started:.1f} s")
    gc.collect()
    gc.freeze()
    pace = Pace.starting(int(time.time() * 1000), options.speed, options.duration_ms)
    fleet = Fleet(models, options.rate, pace.origin_ms, options.seed, pace.length_ms, options.incidents)
    truth = GroundTruth(configured.data_dir / FILE)
    say(f"event time starts at {iso(pace.origin_ms)}; truth in {truth.path}")
    reached_ms = max((await newest_ms(configured, fleet.models)).values(), default=0)
    if pace.origin_ms < too_late_before_ms(configured, reached_ms):
        say(f"this pipeline has had events up to {iso(reached_ms)}: what is older counts in no window. Use --speed 1, "
            "or a pipeline of its own")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_page(configured, say))
        publisher = await stack.enter_async_context(Publisher(configured))
        collector = await stack.enter_async_context(Collector(configured)) if options.score else None
        with _telling(pace, options) as tell:
            before_last = collector.mark if collector else None
            where = await publish(fleet, pace, publisher, truth, tell, stop, before_last=before_last)
        _release_signals()
        if collector is None:
            return Outcome(where, pace, truth, None, True)
        if stop.is_set():
            await collector.mark()
        say("published; waiting for the pipeline to catch up")
        caught_up = await settle(collector, fleet.deployments, where.event_ms)
        found = score(list(truth.incidents.values()), collector.alerts, pace.origin_ms, where.event_ms,
                      len(fleet.deployments))
        return Outcome(where, pace, truth, found, caught_up)


def _release_signals() -> None:
    """From here on Ctrl-C ends the process: what is left is waiting."""
    for number in _SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)


@contextlib.contextmanager
def _telling(pace: Pace, options: Options) -> Iterator[Any]:
    """How progress is shown: a bar on a terminal, a line now and then elsewhere, nothing when quiet."""
    if options.quiet:
        yield lambda where: None
    elif _STDERR.is_terminal:
        with Progress(TextColumn("demo"), BarColumn(), TextColumn("{task.fields[text]}"), TimeElapsedColumn(),
                      console=_STDERR, transient=True) as bar:
            task = bar.add_task("demo", total=pace.length_ms, text="")
            yield lambda where: bar.update(task, completed=where.event_ms - pace.origin_ms, text=_line(where))
    else:
        last = [time.monotonic()]

        def tell(where: Where) -> None:
            if time.monotonic() - last[0] >= LINE_EVERY_S:
                last[0] = time.monotonic()
                print(f"demo: {_line(where)}", file=sys.stderr)

        yield tell


def _line(where: Where) -> str:
    behind = f", {where.behind_ms / 1000:.0f} s behind" if where.behind_ms > 5_000 else ""
    return f"{iso(where.event_ms)}  {where.events:,} events, {where.labels:,} labels{behind}"


def report(outcome: Outcome, options: Options) -> None:
    """The table of incidents, what the rest says, and the line of JSON."""
    console = Console(width=None if sys.stdout.isatty() else 180)
    where, found = outcome.where, outcome.score
    if not options.quiet and found is None:
        console.print(f"{where.events:,} events, {where.labels:,} labels, {len(outcome.truth.incidents)} incidents; "
                      f"truth in {outcome.truth.path}", markup=False, highlight=False)
    if found is not None:
        console.print(_table(found, outcome.pace.origin_ms))
        for text in _verdict(found, outcome):
            console.print(text, markup=False, highlight=False)
    if options.json:
        line: dict[str, Any] = {"events": where.events, "labels": where.labels, "seed": options.seed,
                                "event_seconds": (where.event_ms - outcome.pace.origin_ms) / 1000}
        if found is None:
            line["incidents"] = len(outcome.truth.incidents)
        print(json.dumps(line if found is None else found.summary()))


def _table(found: Score, origin_ms: int) -> Table:
    table = Table(title="Incidents", title_justify="left")
    for name in ("start", "kind", "environment", "model", "found", "delay", "alert"):
        table.add_column(name, justify="right" if name in ("start", "delay") else "left")
    for row in found.rows:
        incident, alert = row.incident, row.alert
        table.add_row(f"+{(incident.start_ms - origin_ms) // 1000} s", incident.kind, incident.environment,
                      incident.model, "yes" if alert else "[red]missed[/red]",
                      "" if row.delay_s is None else f"{row.delay_s:.1f} s", alert.title if alert else "")
    return table


def _verdict(found: Score, outcome: Outcome) -> Iterator[str]:
    numbers = found.summary()
    yield (f"found {found.found} of {len(found.rows)}; missed {len(found.rows) - found.found}; median delay "
           f"{numbers['median_delay_s']} s of event time")
    yield "by kind: " + ", ".join(f"{kind} {got}/{total}" for kind, (total, got) in found.by_kind().items())
    yield (f"false alerts: {len(found.false_alerts)} in {found.model_days:.2f} model-days "
           f"({numbers['false_alerts_per_model_day']} a model and day)")
    for alert in found.false_alerts[:20]:
        yield (f"  false: +{(alert.opened_ms - outcome.pace.origin_ms) // 1000} s {alert.environment} {alert.model} "
               f"{alert.cause}: {alert.title}")
    if not outcome.caught_up:
        yield ("the pipeline did not report the end of the run: is a worker running, and not far behind? "
               "What it had not seen counts as missed")

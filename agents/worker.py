"""The `streamgauge worker` command: every agent on its share of the partitions, and the sinks."""

from __future__ import annotations

from typing import NoReturn

from agents.aggregation import agent as aggregation
from agents.alerts import agent as alerts
from agents.alerts import hooks, push
from agents.drift import agent as drift
from agents.ingest import agent as ingest
from agents.otlp.bridge import OtlpBridge
from agents.retraining import agent as retraining
from agents.scoring import agent as scoring
from agents.scoring.detectors.registry import make
from streams import log, runner
from streams.settings import PREFIX, Settings
from streams.stores.sinks import AlertRelay, AnomalyRelay, Exposition, HistorySink, HotView

logger = log.get(__name__)
ROOMS = (ingest.register, scoring.register, aggregation.register, drift.register, alerts.register,
         retraining.register)


class DetectorsError(ValueError):
    """The detectors that are asked for cannot be had."""

    code = "wrong_setting"
    retriable = False


def sinks(settings: Settings) -> list[runner.Sink]:
    """A sink for each store that is configured and each receiver of alerts, one for Prometheus, and the OTLP bridge."""
    found: list[runner.Sink] = [Exposition(settings)] if settings.exposed_series else []
    if settings.otlp_topic:
        found.append(OtlpBridge(settings))
    if settings.database_url.get_secret_value():
        found.append(HistorySink(settings))
    if settings.redis_url.get_secret_value():
        found += [AlertRelay(settings), AnomalyRelay(settings), HotView(settings)]
    found += [hooks.HookSink(settings, hook) for hook in hooks.read(settings.hooks_file)]
    return [*found, *push.sinks(settings)]


def run(settings: Settings) -> NoReturn:
    """Run a worker until SIGINT or SIGTERM; ends the process.

    Raises:
        DetectorsError: the settings name no detectors that there are.
    """
    try:
        make(settings.detectors)
    except ValueError as error:
        raise DetectorsError(f"{PREFIX}DETECTORS: {error}") from None
    runner.run(settings, ROOMS, sinks(settings))

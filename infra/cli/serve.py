"""The long-running commands, and `setup`. Each checks what would otherwise fail later and less clearly."""

from __future__ import annotations

import asyncio

import typer

from streams.settings import PREFIX, Settings, settings


class ServiceAwayError(RuntimeError):
    """A service that a command needs is not named, or does not answer; the text says what to do."""

    code = "service_away"
    retriable = True


def worker() -> None:
    """Run a worker: all agents on its share of the partitions. SIGTERM or Ctrl-C ends it, with a last checkpoint.

    Start as many as share the load, up to the number of partitions. Its page (STREAMGAUGE_WORKER_PORT) has /metrics,
    /healthz and /readyz.
    """
    from agents.worker import run
    from infra.embedded.process import check_port, disk_error
    check_port(settings().worker_port, f"{PREFIX}WORKER_PORT", settings().host)
    try:
        settings().data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(settings().data_dir, error) from error
    run(settings())


def gateway() -> None:
    """Run the gateway: REST under /api, alerts live at /ws/alerts, a start page at /. SIGTERM or Ctrl-C ends it."""
    from dashboards.api.server import serve
    from infra.embedded.process import check_port
    require(settings(), "redis_url", "Redis")
    require(settings(), "database_url", "PostgreSQL")
    check_port(settings().port, f"{PREFIX}PORT", settings().host)
    serve(settings())


def setup() -> None:
    """Create the topics, and bring the database to this release's shape. Safe to repeat."""
    made, applied = asyncio.run(prepare(settings()))
    typer.echo(f"Topics created: {', '.join(made) or 'none'}. Migrations applied: {', '.join(applied) or 'none'}.")


def require(chosen: Settings, name: str, service: str) -> None:
    """Raise ServiceAwayError if the setting names no service."""
    value = getattr(chosen, name)
    if not (value if isinstance(value, str) else value.get_secret_value()):
        raise ServiceAwayError(f"No {service}: set {PREFIX}{name.upper()}, or run `streamgauge up`, which starts an "
                               "embedded one.")


async def prepare(chosen: Settings) -> tuple[list[str], list[str]]:
    """Create topics, apply migrations, see that Redis answers; returns (topics made, files applied).

    Raises:
        ServiceAwayError: a store does not answer.
        KafkaSetupError: the broker does not, or its topics do not fit.
    """
    import asyncpg
    from redis.exceptions import RedisError

    from infra.migrations import FOLDER
    from streams.kafka import create_topics
    from streams.stores import postgres
    from streams.stores import redis as hot
    made = await create_topics(chosen)
    applied: list[str] = []
    if chosen.redis_url.get_secret_value():
        try:
            client = hot.connect(chosen)
        except ValueError as error:
            raise ServiceAwayError(f"{PREFIX}REDIS_URL is none: {_short(error)}.") from error
        try:
            await client.ping()
        except (RedisError, OSError, ValueError) as error:
            raise ServiceAwayError(f"Redis does not answer ({_short(error)}): start it, or correct "
                                   f"{PREFIX}REDIS_URL.") from error
        finally:
            await client.aclose()
    if chosen.database_url.get_secret_value():
        try:
            applied = await postgres.migrate(chosen, FOLDER)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise ServiceAwayError(f"PostgreSQL does not take the migrations ({_short(error)}): start it, or correct "
                                   f"{PREFIX}DATABASE_URL.") from error
    return made, applied


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

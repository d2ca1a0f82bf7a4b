"""Numbered SQL files, applied once and in order by `streams.stores.postgres.migrate`."""

from pathlib import Path

FOLDER = Path(__file__).parent

"""The ground-truth file: one JSON line an incident, so that what the pipeline finds can be scored."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from infra.demo.incidents import Incident

FILE = Path("demo") / "ground-truth.ndjson"


class GroundTruth:
    """Written whole at each change, by rename: a reader sees an old file or a new one, never half of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.incidents: dict[str, Incident] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def note(self, incidents: Iterable[Incident]) -> None:
        """Add incidents at their start, or close them at their end."""
        changed = {incident.incident_id: incident for incident in incidents}
        if changed:
            self.incidents.update(changed)
            self._write()

    def _write(self) -> None:
        encoder = msgspec.json.Encoder()
        lines = [encoder.encode(incident.record()) + b"\n" for incident in self.incidents.values()]
        new = self.path.with_suffix(".new")
        with new.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)


def read(path: Path) -> list[Incident]:
    """The incidents of a ground-truth file, in order of their start."""
    return [msgspec.json.decode(line, type=Incident) for line in path.read_bytes().splitlines() if line.strip()]

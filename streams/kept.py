"""A secret that is made on the first run and kept in a file for its owner's eyes only."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def kept(path: Path, make: Callable[[], str]) -> str:
    """What the file holds; made, and written with mode 0600, if there is none or it is empty.

    Raises:
        OSError: the folder cannot be written.
    """
    return _read(path) or _make(path, make)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _make(path: Path, make: Callable[[], str]) -> str:
    """Write the file beside its place and link it there, so that nobody reads half of it and the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "w") as out:
            out.write(make())
            out.flush()
            os.fsync(out.fileno())
        if path.exists() and not _read(path):       # left empty by a full disk
            part.replace(path)
        else:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(part)
    finally:
        part.unlink(missing_ok=True)
    return _read(path)

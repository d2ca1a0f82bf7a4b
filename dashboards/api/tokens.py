"""Who may do what: the gateway's own token may do everything, the tokens of a file what their entry says.

The file (`STREAMGAUGE_TOKENS_FILE`, JSON) holds digests only and is read again when it changes, so that a token can be
given out, limited and withdrawn without a restart, and any number of gateways share it:

    [{"name": "phone", "sha256": "...", "scopes": ["read"], "environments": ["prod"], "expires_ms": 0,
      "max_sockets": 10}]

A scope holds those before it: read < acknowledge < admin. No environments: all of them. `expires_ms` 0: never.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.base import Name
from streams import log

logger = log.get(__name__)
Scope = Literal["read", "acknowledge", "admin"]
RANK: dict[str, int] = {"read": 0, "acknowledge": 1, "admin": 2}
#: Seconds between two looks at the file.
LOOK_S = 1.0


class Grant(BaseModel):
    """What one token allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    scopes: tuple[Scope, ...] = ("read",)
    environments: tuple[Name, ...] = ()
    expires_ms: int = Field(default=0, ge=0)
    max_sockets: int = Field(default=100, ge=1)

    def may(self, scope: Scope) -> bool:
        """True if one of its scopes holds this one."""
        return max(RANK[own] for own in self.scopes) >= RANK[scope] if self.scopes else False

    def sees(self, environment: str) -> bool:
        """True if it is not limited to other environments."""
        return not self.environments or environment in self.environments

    def expired(self, now_ms: int) -> bool:
        return 0 < self.expires_ms <= now_ms


ROOT = Grant(name="root", scopes=("admin",), max_sockets=1_000_000)
_FILE: TypeAdapter[list[Grant]] = TypeAdapter(list[Grant])


def digest(text: str) -> str:
    """How a token is kept."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def read(path: Path) -> list[Grant]:
    """The grants of a file; none if there is no file.

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be read.
    """
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []


def write(path: Path, grants: list[Grant]) -> None:
    """Put the file in place as a whole, for its owner's eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(_FILE.dump_json(grants, indent=1))
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def made(grant: Grant) -> tuple[str, Grant]:
    """A new token, and the entry that goes into the file for it."""
    token = secrets.token_urlsafe(24)
    return token, grant.model_copy(update={"sha256": digest(token)})


class TokenBook:
    """The tokens that a gateway knows, and how many sockets each has open.

    A file that does not read leaves the grants as they were: half an edit locks nobody out, and lets nobody in.
    """

    def __init__(self, root: str, path: Path, now_s: Callable[[], float] = time.time) -> None:
        self.path = path
        self.sockets: Counter[str] = Counter()
        self._root = digest(root) if root else ""
        self._now_s = now_s
        self._grants: dict[str, Grant] = {}
        self._looked_s = 0.0
        self._stamp: tuple[int, int, int] | None = None

    def find(self, given: str) -> Grant | None:
        """The grant of a token, expired or not. Digests are compared, which tells nothing of the token."""
        if not given:
            return None
        wanted = digest(given)
        if secrets.compare_digest(wanted, self._root):
            return ROOT
        self._look()
        return self._grants.get(wanted)

    def digest_of(self, grant: Grant) -> str:
        """How the token of a grant is kept."""
        return self._root if grant is ROOT else grant.sha256

    def known(self) -> dict[str, Grant] | None:
        """All grants by their tokens' digests, expired ones too; None: the file has not been read so far."""
        self._look()
        return None if self._stamp is None else {self._root: ROOT} | self._grants

    def expired(self, grant: Grant) -> bool:
        return grant.expired(int(self._now_s() * 1000))

    def valid(self, grant: Grant) -> bool:
        """False once it has expired, or its entry is gone or another: for sockets that are open already."""
        if grant is ROOT:
            return True
        self._look()
        return self._grants.get(grant.sha256) == grant and not self.expired(grant)

    def _look(self) -> None:
        now = self._now_s()
        if 0 <= now - self._looked_s < LOOK_S:
            return
        self._looked_s = now
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            stamp = (0, 0, 0)
        if stamp == self._stamp:
            return
        try:
            self._grants = {grant.sha256: grant for grant in read(self.path) if grant.sha256}
            self._stamp = stamp
        except (OSError, ValidationError) as error:
            logger.error("tokens.unreadable", file=self.path.name, error=type(error).__name__)

"""The file of rules: read when it changes; one that does not read leaves those before it in force."""

from __future__ import annotations

from pathlib import Path

from agents.alerts import ruleset
from agents.alerts.ruleset import RuleSet
from streams import log

logger = log.get(__name__)


class RulesFile:
    """The rules of a file, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.rules = ruleset.NONE
        self._stamp: tuple[int, int, int] | None = None

    def changed(self) -> RuleSet | None:
        """The rules, if they are others than when last asked."""
        if self.path is None:
            return None
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            stamp = (0, 0, 0)
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        if not stamp[2]:
            logger.warning("rules.missing", file=str(self.path), help="its rules are in force once it is there")
        try:
            rules = ruleset.read(self.path.read_bytes()) if stamp[2] else ruleset.NONE
        except (OSError, ValueError) as error:
            logger.error("rules.unreadable", file=self.path.name, error=str(error)[:500])
            return None
        if rules == self.rules:
            return None
        self.rules = rules
        logger.info("rules.read", file=self.path.name, rules=len(rules.rules))
        return rules

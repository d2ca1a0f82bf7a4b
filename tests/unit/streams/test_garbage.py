"""Objects that stay are looked through for cycles once, and cycles do not pile up. Each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from support import ROOT

BEGIN = """
import gc
from streams.garbage import THRESHOLDS, Garbage
garbage = Garbage()
def cycle():
    found = []
    found.append(found)
    return found
"""


def run(code: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", BEGIN + code], cwd=ROOT, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_what_has_stayed_is_not_looked_through_again() -> None:
    young, aside = run("before = gc.get_freeze_count()\n"
                       "kept = [[] for _ in range(10 * THRESHOLDS[0])]\n"
                       "print(len(gc.get_objects()), gc.get_freeze_count() - before)")
    assert aside >= 9 * 50_000 and young <= 2 * 50_000


def test_what_is_set_aside_is_freed_by_its_last_reference() -> None:
    (left,) = run("before = gc.get_freeze_count()\n"
                  "kept = [[] for _ in range(10 * THRESHOLDS[0])]\n"
                  "del kept\n"
                  "print(gc.get_freeze_count() - before)")
    assert left < 50_000


def test_new_cycles_are_freed_as_ever() -> None:
    (left,) = run("for _ in range(1_000_000): cycle()\n"
                  "print(gc.get_freeze_count() + len(gc.get_objects()))")
    assert left < 300_000


def test_cycles_that_were_set_aside_are_freed_once_they_are_many() -> None:
    few, many, again = run("gc.collect()\n"
                           "few = garbage.look()\n"
                           "kept = [cycle() for _ in range(1_000_000)]\n"
                           "del kept\n"
                           "print(few, garbage.look(), garbage.look())")
    assert few == again == 0 and many >= 900_000

"""The members of consumer groups that a worker is, noted in its data folder: the next one takes those of the dead out.

A consumer that is killed stays in its group until its session ends. Until then its partitions rest, and a broker may
wait for it, or even make it the leader, when others join. A note is locked by its process, and the lock goes with it,
however it dies. So a worker that starts lets the members leave whose note nobody holds, as they would have done
themselves. Where the folder does not outlive a worker, its sessions end by Kafka's clock, as ever.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.group import LeaveGroupRequest

from streams import log
from streams.kafka import client_options
from streams.settings import Settings

logger = log.get(__name__)

#: Taking members out may take so long; after that their sessions end by themselves.
SECONDS = 5.0
#: Told a group and the id of the member that this process is in it.
Joined: TypeAlias = Callable[[str, str], None]


def nobody(group: str, member_id: str) -> None:
    """A `Joined` that notes nothing."""


class Note:
    """What one process is. Locked as long as it lives."""

    def __init__(self, folder: Path, kafka_url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{os.getpid()}-{time.time_ns()}.json"
        self._kafka_url = kafka_url
        self._members: dict[str, str] = {}
        fresh = folder / f"{name}.new"
        self._file = fresh.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        fresh.rename(folder / name)         # now others see it, and that it is held

    def joined(self, group: str, member_id: str) -> None:
        """This process is a member of a group."""
        if member_id and self._members.get(group) != member_id:
            self._members[group] = member_id
            self._file.seek(0)
            self._file.truncate()
            self._file.write(json.dumps({"kafka_url": self._kafka_url, "members": self._members}))
            self._file.flush()

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


async def take_out_dead(folder: Path, settings: Settings) -> int:
    """Let the members of processes that have died leave their groups; how many they were."""
    found = list(_dead(folder, settings.kafka_url))
    if not found:
        return 0
    try:
        taken = await asyncio.wait_for(_leave(found, settings), SECONDS)
    except (KafkaError, OSError, TimeoutError) as error:
        logger.warning("members.left_in", members=len(found), error=repr(error))
        return 0
    if taken:
        logger.info("members.taken_out", members=taken)
    return taken


def _dead(folder: Path, kafka_url: str) -> Iterator[tuple[str, str]]:
    """(group, member id) in notes of this broker that no process holds. Notes that nobody holds go."""
    for path in sorted(folder.glob("*.json")):
        try:
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
                found = file.read()
        except OSError:             # held; or another worker that starts has just taken it; or it is not ours to read
            continue
        yield from _read(found, kafka_url)


def _read(text: str, kafka_url: str) -> list[tuple[str, str]]:
    """What a note says; nothing of one of another broker, or that its process did not finish."""
    try:
        found = json.loads(text)
        return [(str(group), str(member)) for group, member in found["members"].items()
                if found["kafka_url"] == kafka_url]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


async def _leave(members: list[tuple[str, str]], settings: Settings) -> int:
    admin = AIOKafkaAdminClient(**client_options(settings))
    try:
        await admin.start()
        taken = 0
        for group, member_id in members:
            coordinator = await admin.find_coordinator(group)
            answer = await admin._send_request_to_node(coordinator, LeaveGroupRequest(group, member_id))
            taken += answer.error_code == 0             # else: its session has ended already
        return taken
    finally:
        await admin.close()

"""What routes share: the words of a query, and the errors that say what would make sense."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import HTTPException, Query, Request

from dashboards.api.asking.question import QuestionError
from dashboards.api.history import HistoryReader
from schemas.base import MAX_TIMESTAMP_MS, instant_ms

DAY_MS = 86_400_000
_FAULT = {"content": {"application/json": {"example": {"code": "unauthorized", "message": "what to do"}}}}
FAULTS: dict[int | str, dict[str, object]] = {
    401: {"description": "The token is missing or wrong", **_FAULT},
    422: {"description": "The question makes no sense", **_FAULT},
    503: {"description": "A store is away", **_FAULT}}

Environment = Annotated[str, Query(description="Only this environment")]
Model = Annotated[str, Query(description="Only this model")]
Limit = Annotated[int, Query(ge=1, le=1_000, description="At most so many")]
Instant = Annotated[str, Query(description="Epoch milliseconds, or ISO 8601 with a zone")]


def history_of(request: Request) -> HistoryReader:
    """The history, or 503 while PostgreSQL has not answered yet."""
    reader: HistoryReader | None = request.app.state.history
    if reader is None:
        raise HTTPException(503, {"code": "database_away", "message": "PostgreSQL does not answer; try again soon"})
    return reader


def unclear(code: str, message: str) -> HTTPException:
    """422, and what would make sense."""
    return HTTPException(422, {"code": code, "message": message})


def unclear_question(error: QuestionError) -> HTTPException:
    """The same, of a question about windows."""
    return unclear(error.code, str(error))


def instant(text: str, default: int) -> int:
    """Epoch milliseconds of an instant in a query; 422 if it is none."""
    if not text:
        return default
    try:
        found = int(text) if text.lstrip("-").isdecimal() else int(instant_ms(text))
    except (ValueError, OverflowError):
        raise unclear("bad_instant", "an instant is epoch milliseconds, or ISO 8601 with a zone: "
                                     "2026-05-01T10:00:00Z (a + must be sent as %2B)") from None
    if not 0 <= found <= MAX_TIMESTAMP_MS:
        raise unclear("bad_instant", "the instant lies outside 1970 to 3000: milliseconds, not microseconds?")
    return found


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000

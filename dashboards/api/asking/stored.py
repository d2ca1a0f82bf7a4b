"""Windows from PostgreSQL: those of the asked size, and the finer ones that stand in where no such window has closed.

First the lines of the question (a series as one partition saw it) and up to when each is known at each size, from
`metric_series`; then two statements over ranges of an index. Only the fields asked for leave the database, and their
sketches only if quantiles are wanted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from dashboards.api.asking.join import NEVER_MS, Line, Part
from dashboards.api.asking.question import Question, QuestionError
from dashboards.api.asking.summary import Summary
from dashboards.api.history import HistoryReader
from streams.stores.postgres import epoch_ms, moment

#: Rows that one question may read.
MOST_ROWS = 100_000
_ROW = "w.environment, w.model, w.version, w.component, w.partition, w.size_ms, w.start_at, w.count, w.errors, " \
       "w.revision, "
#: What is known of a series that the history does not have.
UNKNOWN: dict[str, Any] = {"first_ms": None, "end_ms": None, "granularities_ms": []}
_decode_one = msgspec.json.Decoder(Summary).decode
_decode = msgspec.json.Decoder(dict[str, Summary | None]).decode


class Tables(NamedTuple):
    """Where windows of a level are, and how their segment is read."""

    windows: str
    series: str
    segment: str


_SERIES = Tables("metric_windows", "metric_series", "'' AS segment")
_LEVELS = Tables("level_windows", "level_series", "w.segment")


def _tables(question: Question) -> Tables:
    return _LEVELS if question.level else _SERIES


@dataclass(frozen=True, slots=True)
class Known:
    """The lines of a question: up to when each is known at each size that has windows."""

    ends_ms: Mapping[tuple[Line, int], int]

    @property
    def lines(self) -> list[Line]:
        return sorted({line for line, _ in self.ends_ms})

    def tails(self, question: Question, finer_ms: Sequence[int]) -> list[tuple[Line, int, int]]:
        """(line, size, from ms): finer windows that no coarser one tells. `finer_ms` descend."""
        found = []
        for line in self.lines:
            head_ms = max(self.ends_ms.get((line, question.size_ms), NEVER_MS), question.from_ms)
            for size in finer_ms:
                end_ms = self.ends_ms.get((line, size), NEVER_MS)
                if head_ms < min(end_ms, question.to_ms):
                    found.append((line, size, head_ms))
                head_ms = max(head_ms, end_ms)
        return found


async def known(history: HistoryReader, question: Question, sizes_ms: Sequence[int]) -> Known:
    """The lines that a question is about; of those that may have windows in its span."""
    conditions, given = _filters(question, [list(sizes_ms), moment(question.from_ms), moment(question.to_ms)])
    tables = _tables(question)
    rows = await history.fetch(
        f"SELECT environment, model, version, component, partition, {tables.segment}, size_ms, end_at "  # noqa: S608
        f"FROM {tables.series} w WHERE size_ms = ANY($1::integer[]) AND end_at > $2 AND first_at < $3{conditions}",
        *given)
    return Known({(Line(*tuple(row)[:6]), row["size_ms"]): epoch_ms(row["end_at"]) for row in rows})


async def sizes_ms(history: HistoryReader, question: Question) -> set[int]:
    """The sizes that have windows in the span of a question."""
    conditions, given = _filters(question, [moment(question.from_ms), moment(question.to_ms)])
    rows = await history.fetch(f"SELECT DISTINCT size_ms FROM {_tables(question).series} w "  # noqa: S608
                               f"WHERE end_at > $1 AND first_at < $2{conditions}", *given)
    return {row["size_ms"] for row in rows}


def rows_for(question: Question, lines: Iterable[Line], points: int) -> int:
    """Rows that have at least `points` points among them, or a whole step.

    Raises:
        QuestionError: a step alone has more than one question may read.
    """
    lines_of: Counter[tuple[str, ...]] = Counter(
        tuple(getattr(line, key) for key in question.group_by) for line in lines)
    a_point = max(lines_of.values(), default=1) * (question.step_ms // question.size_ms)
    a_step = sum(lines_of.values()) * (question.step_ms // question.size_ms)
    if a_step > MOST_ROWS:
        raise QuestionError("too_much", f"one step has up to {a_step} windows, and a question reads {MOST_ROWS} at the "
                            "most: ask for fewer series, or a coarser granularity")
    return min(max((points + 1) * a_point, a_step) + 1, MOST_ROWS)


async def windows(history: HistoryReader, question: Question, most: int) -> tuple[list[Part], bool]:
    """The first `most` windows of the asked size, in time order; whether there are more."""
    conditions, given = _filters(question, [question.size_ms, moment(question.from_ms), moment(question.to_ms)])
    fields, given = _fields(question, given)
    given.append(most + 1)
    tables = _tables(question)
    rows = await history.fetch(
        f"SELECT {_ROW}{tables.segment}, {fields} AS fields FROM {tables.windows} w "  # noqa: S608
        f"WHERE w.size_ms = $1 AND w.start_at >= $2 AND w.start_at < $3{conditions} "
        f"ORDER BY w.start_at LIMIT ${len(given)}", *given)
    return [_part(row, question) for row in rows[:most]], len(rows) > most


async def tail_windows(history: HistoryReader, question: Question, tails: Sequence[tuple[Line, int, int]]
                       ) -> list[Part]:
    """The finer windows that `Known.tails` names: a range of the index each; the inner LIMIT keeps the planner to it.

    Raises:
        QuestionError: there are more than one question may read.
    """
    if not tails:
        return []
    keys = list(zip(*(line for line, _, _ in tails), strict=True))
    given: list[Any] = [*map(list, keys), [size for _, size, _ in tails], [moment(at) for _, _, at in tails],
                        moment(question.to_ms)]
    fields, given = _fields(question, given)
    tables, of_level = _tables(question), ""
    if question.level:
        given.append(question.level)
        of_level = f"w.level = ${len(given)} AND w.segment = t.segment AND "
    rows = await history.fetch(
        f"SELECT w.* FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::integer[], "  # noqa: S608
        "$6::text[], $7::integer[], $8::timestamptz[]) "
        "AS t (environment, model, version, component, partition, segment, size_ms, from_at) CROSS JOIN LATERAL ("
        f"SELECT {_ROW}{tables.segment}, {fields} AS fields FROM {tables.windows} w "
        f"WHERE {of_level}w.environment = t.environment AND w.model = t.model AND w.size_ms = t.size_ms "
        "AND w.start_at >= t.from_at AND w.start_at < $9 AND w.version = t.version AND w.component = t.component "
        f"AND w.partition = t.partition ORDER BY w.start_at LIMIT {MOST_ROWS + 1}) w LIMIT {MOST_ROWS + 1}", *given)
    if len(rows) > MOST_ROWS:
        raise QuestionError("too_much", f"more than {MOST_ROWS} windows: ask for a shorter span, or fewer series")
    return [_part(row, question) for row in rows]


def _filters(question: Question, given: list[Any]) -> tuple[str, list[Any]]:
    conditions, given = "", list(given)
    if question.level:
        given.append(question.level)
        conditions += f" AND w.level = ${len(given)}"
    for key, value in question.filters.items():
        given.append(value)
        conditions += f" AND w.{key} = ${len(given)}"
    if question.segment:
        whole = "=" in question.segment
        given.append(question.segment if whole else f"{question.segment}=")
        conditions += f" AND w.segment = ${len(given)}" if whole else f" AND starts_with(w.segment, ${len(given)})"
    return conditions, given


def _fields(question: Question, given: list[Any]) -> tuple[str, list[Any]]:
    """The expression of the fields, and the values it needs."""
    if question.no_fields:
        return "'{}'", given
    if not question.fields:
        return "w.fields", given
    less = "" if question.quantiles else " - 'sketch'"
    if len(question.fields) == 1:       # a quarter less to do for the database than with an object around it
        return f"(w.fields -> ${len(given) + 1}::text){less}", [*given, *question.fields]
    parts = [f"${at}::text, (w.fields -> ${at}){less}" for at in range(len(given) + 1,
                                                                      len(given) + 1 + len(question.fields))]
    return f"jsonb_build_object({', '.join(parts)})", [*given, *question.fields]


def _summaries(text: str | None, question: Question) -> dict[str, Summary]:
    """What `_fields` made the database answer."""
    if text is None:
        return {}
    if len(question.fields) == 1:
        return {question.fields[0]: _decode_one(text)}
    return {name: summary for name, summary in _decode(text).items() if summary is not None}


def _part(row: Any, question: Question) -> Part:
    return Part(Line(row["environment"], row["model"], row["version"], row["component"], row["partition"],
                     row["segment"]),
                row["size_ms"], epoch_ms(row["start_at"]), row["count"], row["errors"], row["revision"],
                _summaries(row["fields"], question))


def series_of(lines: Iterable[Line]) -> dict[str, list[Line]]:
    """The lines by the name that their series has in Redis."""
    found: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        found["|".join(line[:4])].append(line)
    return found


async def catalogue(history: HistoryReader, environment: str, model: str, since_ms: int
                    ) -> dict[tuple[str, ...], dict[str, Any]]:
    """(environment, model, version, component) of series with windows since then: when they begin and end, and which
    sizes there are."""
    rows = await history.fetch("""
        SELECT environment, model, version, component, min(first_at) AS first_at, max(end_at) AS end_at,
          array_agg(DISTINCT size_ms ORDER BY size_ms) AS sizes
        FROM metric_series WHERE ($1 = '' OR environment = $1) AND ($2 = '' OR model = $2) AND end_at > $3
        GROUP BY 1, 2, 3, 4""", environment, model, moment(since_ms))
    return {tuple(row)[:4]: {"first_ms": epoch_ms(row["first_at"]), "end_ms": epoch_ms(row["end_at"]),
                             "granularities_ms": row["sizes"]} for row in rows}

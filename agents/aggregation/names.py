"""Names that are let in: of each family the first few of a span of event time, in log order; the others are `<other>`.

So what a name becomes is the log's alone. In steady traffic the frequent come first: a name with a share s of the
events is among the first n with n events or more at the odds 1 - (1 - s)^n, and each span begins anew.

Rows of names must be written after those of what is made with them (`streams.state.checkpoint` writes agents' rows in
the order in which their states were first asked for): then what a crash leaves of the names is never ahead of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from streams.state.keyed import KeyedStates
from streams.windows.layout import OTHER

#: Nothing in the place of a name.
NONE = "<none>"
_UNIT = "\x1f"


@dataclass(slots=True)
class Known:
    """A family's names by span, in the order in which they came."""

    spans: dict[int, dict[str, None]] = field(default_factory=dict)


States = KeyedStates[Known]


class Codec:
    """Names as msgpack."""

    def new(self, key: str) -> Known:
        return Known()

    def encode(self, key: str, state: Known) -> bytes:
        return msgspec.msgpack.encode({span: list(names) for span, names in state.spans.items()})

    def decode(self, key: str, data: bytes) -> Known:
        """Raises ValueError if the bytes are damaged."""
        try:
            spans = msgspec.msgpack.decode(data, type=dict[int, list[str]])
        except msgspec.MsgspecError as error:
            raise ValueError(f"names are damaged: {error}") from None
        return Known({span: dict.fromkeys(names) for span, names in spans.items()})


class FirstNames:
    """At most `most` names a family and span of `span_ms`. Memory: two spans of a family; older ones are forgotten, so
    a span must be longer than the grace and the delay together, after which no event of it counts."""

    def __init__(self, most: int, span_ms: int) -> None:
        self.most = most
        self.span_ms = span_ms
        self.codec = Codec()

    def name(self, states: States, family: tuple[str, ...], span: int, text: str) -> str:
        """What `text` is called from its first appearance in the span on."""
        entry = states.entry(_UNIT.join(family))
        spans = entry.state.spans
        known = spans.get(span)
        if known is None:
            newest = max(spans, default=span)
            if span < newest - 1:
                return OTHER
            known = spans[span] = {}
            for old in [at for at in spans if at < max(newest, span) - 1]:
                del spans[old]
            states.touch(entry)
        if text in known:
            return text
        if len(known) >= self.most:
            return OTHER
        known[text] = None
        states.touch(entry)
        return text


def printable(text: str) -> str:
    """The text without control characters, which stand between the parts of our keys."""
    return "".join(letter if letter >= " " else "\ufffd" for letter in text) if min(text, default=" ") < " " else text

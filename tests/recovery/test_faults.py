"""One fault after the other under a steady load, everything running: nothing is lost, counted twice or told twice."""

from __future__ import annotations

import pytest

from tests.bench import recovery

#: What `test_kill` and `test_hostile` do not do already.
FAULTS = [name for name in recovery.FAULTS if name not in ("kill", "rebalance")]


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.kafka if name in recovery.ON_KAFKA else ()) for name in FAULTS])
def test_a_fault_costs_nothing(name: str) -> None:
    try:
        found = recovery.inflict(name, quick=True)
    except recovery.NotHereError as error:
        pytest.skip(str(error))
    costs = {key: found[key] for key in ("lost", "twice", "alerts_lost", "alerts_repeated", "rows_wrong")}
    assert costs == dict.fromkeys(costs, 0)
    assert found["events"] > 0
    assert found["alerts"] > 0

"""Change detectors behind one interface (`base.Detector`), by name."""

from __future__ import annotations

from collections.abc import Callable

from agents.drift.detectors import stepped
from agents.drift.detectors.adwin import Adwin
from agents.drift.detectors.base import Detector
from agents.drift.detectors.likelihood import Likelihood

#: Each with its source's parameters; `likelihood` is ours.
DETECTORS: dict[str, Callable[[], Detector]] = {
    "adwin": Adwin, "page_hinkley": stepped.page_hinkley, "kswin": stepped.kswin, "ddm": stepped.ddm,
    "eddm": stepped.eddm, "hddm_a": stepped.hddm_a, "hddm_w": stepped.hddm_w, "fhddm": stepped.fhddm,
    "likelihood": Likelihood,
}

"""How the functions of this room are compiled."""

from __future__ import annotations

from numba import njit

#: Without numba's reference counts: nothing here makes or keeps an array, and counting all of them at every call took
#: two thirds of the time (6.0 against 2.1 µs an event). What makes an array fails to compile.
compiled = njit(cache=True, nogil=True, _nrt=False)

"""The compiled steps of change detectors, each over many values at once.

A kernel takes (state, parameters, values, alarms), writes the indices of its alarms and returns how many there were.
state[ALARM] is 1 after an alarm: the next value begins anew. state[WIDTH] is how many of the latest values belong to
the new level. The rest of a state is the kernel's own; a kernel's numbers are River's but for the order of sums.
"""

from __future__ import annotations

import math

import numpy as np

from agents.drift.detectors.base import FloatArray, IntArray
from streams.compiled import compiled

ALARM, WIDTH, OWN = 0, 1, 2


@compiled
def page_hinkley(state: FloatArray, parameters: FloatArray, values: FloatArray, alarms: IntArray) -> int:
    """parameters: least values, delta, threshold, alpha. own: n, mean, up, down, least up, most down, their n."""
    found = 0
    for at in range(len(values)):
        if state[ALARM] or not state[2]:
            state[:] = 0.0
            state[6], state[7] = math.inf, -1.0
        x = values[at]
        state[2] += 1.0
        state[3] += (x - state[3]) / state[2]
        by = x - state[3]
        state[4] = parameters[3] * state[4] + by - parameters[1]
        state[5] = parameters[3] * state[5] + by + parameters[1]
        if state[4] < state[6]:
            state[6], state[8] = state[4], state[2]
        if state[5] > state[7]:
            state[7], state[9] = state[5], state[2]
        if state[2] >= parameters[0]:
            up, down = state[4] - state[6], state[7] - state[5]
            if up > parameters[2] or down > parameters[2]:
                state[ALARM] = 1.0
                state[WIDTH] = state[2] - (state[8] if up > down else state[9])
                alarms[found] = at
                found += 1
    return found


@compiled
def ddm(state: FloatArray, parameters: FloatArray, values: FloatArray, alarms: IntArray) -> int:
    """parameters: least values, standard deviations. own: n, p, least p, its s, their sum, its n."""
    found = 0
    for at in range(len(values)):
        if state[ALARM] or not state[2]:
            state[:] = 0.0
            state[6] = math.inf
        state[2] += 1.0
        state[3] += (values[at] - state[3]) / state[2]
        p = min(1.0, max(0.0, state[3]))
        s = math.sqrt(p * (1.0 - p) / state[2])
        if state[2] <= parameters[0]:
            continue
        if p + s <= state[6]:
            state[4], state[5], state[6], state[7] = p, s, p + s, state[2]
        if p + s > state[4] + parameters[1] * state[5]:
            state[ALARM], state[WIDTH] = 1.0, state[2] - state[7]
            alarms[found] = at
            found += 1
    return found


@compiled
def eddm(state: FloatArray, parameters: FloatArray, values: FloatArray, alarms: IntArray) -> int:
    """parameters: least values and errors, beta. own: n, last error, errors, mean distance, M2, longest, its n."""
    found = 0
    for at in range(len(values)):
        if state[ALARM] or not state[2]:
            state[:] = 0.0
            state[7] = -1.0
        state[2] += 1.0
        if values[at] != 1.0:
            continue
        state[4] += 1.0
        distance = state[2] - state[3]
        by = distance - state[5]
        state[5] += by / state[4]
        state[6] += by * (distance - state[5])
        state[3] = state[2]
        if state[2] <= parameters[0]:
            continue
        variance = state[6] / (state[4] - 1.0) if state[4] > 1.0 else 0.0
        reach = state[5] + 2.0 * math.sqrt(max(0.0, variance))
        if reach > state[7]:
            state[7], state[8] = reach, state[2]
        elif state[4] > parameters[0] and reach / state[7] < parameters[1]:
            state[ALARM], state[WIDTH] = 1.0, state[2] - state[8]
            alarms[found] = at
            found += 1
    return found


@compiled
def hddm_a(state: FloatArray, parameters: FloatArray, values: FloatArray, alarms: IntArray) -> int:
    """parameters: confidence. own: n, mean, n and mean of the prefix with the least upper bound."""
    found = 0
    log = math.log(1.0 / parameters[0])
    log_both = math.log(2.0 / parameters[0])
    for at in range(len(values)):
        if state[ALARM]:
            state[:] = 0.0
        state[2] += 1.0
        state[3] += (values[at] - state[3]) / state[2]
        n, mean = state[2], state[3]
        if not state[4] or state[5] + math.sqrt(log / (2.0 * state[4])) >= mean + math.sqrt(log / (2.0 * n)):
            state[4], state[5] = n, mean
            continue
        m = (n - state[4]) / state[4] / n
        if mean - state[5] >= math.sqrt(m / 2.0 * log_both):
            state[ALARM], state[WIDTH] = 1.0, n - state[4]
            alarms[found] = at
            found += 1
    return found


@compiled
def hddm_w(state: FloatArray, parameters: FloatArray, values: FloatArray, alarms: IntArray) -> int:
    """parameters: confidence, lambda. own: all (n, mean, bound), before the cut and after it, the cut's bound."""
    found = 0
    log = math.log(1.0 / parameters[0])
    weight = parameters[1]
    keep = (1.0 - weight) ** 2
    for at in range(len(values)):
        if state[ALARM] or not state[2]:
            state[:] = 0.0
            state[4], state[7], state[10] = 1.0, 1.0, 1.0
            state[11] = math.inf
        x = values[at]
        state[3] = x if not state[2] else state[3] + weight * (x - state[3])
        state[4] = weight * weight + keep * state[4]
        state[2] += 1.0
        upper = state[3] + math.sqrt(state[4] * log / 2.0)
        if upper < state[11]:
            state[11] = upper
            state[5:8] = state[2:5]
            state[8], state[9], state[10] = 0.0, 0.0, 1.0
            continue
        state[9] = x if not state[8] else state[9] + weight * (x - state[9])
        state[10] = weight * weight + keep * state[10]
        state[8] += 1.0
        if state[9] - state[6] > math.sqrt((state[7] + state[10]) * log / 2.0):
            state[ALARM], state[WIDTH] = 1.0, state[8]
            alarms[found] = at
            found += 1
    return found


@compiled
def fhddm(state: FloatArray, parameters: FloatArray, values: FloatArray, alarms: IntArray) -> int:
    """parameters: confidence. own: n, errors in the window, the fewest ever, then the window as a ring."""
    found = 0
    ring = state[5:]
    size = len(ring)
    bound = math.sqrt(math.log(1.0 / parameters[0]) / (2.0 * size))
    for at in range(len(values)):
        if state[ALARM] or not state[2]:
            state[:] = 0.0
            state[4] = math.inf
        place = int(state[2]) % size
        state[3] += values[at] - (ring[place] if state[2] >= size else 0.0)
        ring[place] = values[at]
        state[2] += 1.0
        if state[2] < size:
            continue
        state[4] = min(state[4], state[3])
        if (state[3] - state[4]) / size > bound:
            state[ALARM], state[WIDTH] = 1.0, float(size)
            alarms[found] = at
            found += 1
    return found


@compiled
def kswin(state: FloatArray, parameters: FloatArray, values: FloatArray, alarms: IntArray) -> int:
    """parameters: alpha, size of the recent part. own: n, then the window as a ring."""
    found = 0
    ring = state[3:]
    size, recent = len(ring), int(parameters[1])
    old = size - recent
    limit = max(0.1, math.sqrt(-math.log(parameters[0] / 2.0) / 2.0 * (old + recent) / (old * recent)))
    for at in range(len(values)):
        if state[ALARM]:
            newest = np.empty(recent)
            for i in range(recent):
                newest[i] = ring[int(state[2] - recent + i) % size]
            state[:] = 0.0
            ring[:recent] = newest
            state[2] = recent
        ring[int(state[2]) % size] = values[at]
        state[2] += 1.0
        if state[2] < size:
            continue
        ordered = np.empty(size)
        for i in range(size):
            ordered[i] = ring[int(state[2] + i) % size]
        if _distance(np.sort(ordered[:old]), np.sort(ordered[old:])) > limit:
            state[ALARM], state[WIDTH] = 1.0, float(recent)
            alarms[found] = at
            found += 1
    return found


@compiled
def _distance(a: FloatArray, b: FloatArray) -> float:
    """The largest distance of two empirical distributions, both sorted."""
    i, j, most = 0, 0, 0.0
    while i < len(a) and j < len(b):
        value = min(a[i], b[j])
        while i < len(a) and a[i] <= value:
            i += 1
        while j < len(b) and b[j] <= value:
            j += 1
        most = max(most, abs(i / len(a) - j / len(b)))
    return most

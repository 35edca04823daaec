"""How much of their planned memory the expert banks may use now: less at once when the machine runs short, more only
slowly when it has had enough for a while. A process that is compressed or swapped is slower than one with few slots."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic

from .pressure import Pressure, read_pressure

LOOK = 1.0  # seconds between looks
SETTLE = 3.0  # seconds until what was given back shows in the numbers
CALM = 30.0  # seconds of enough memory before anything is taken back, and between steps
KEEP = {1: 0.85, 2: 0.6}  # of the present share, by level
LEAST = 0.2  # of the plan; what is below is not worth streaming with
STEP = 1 / 16  # of the plan, when growing


@dataclass(frozen=True, slots=True)
class Elastic:
    """A share of the plan, and when it last changed or memory last was short (seconds of any clock)."""

    share: float = 1.0
    changed: float = 0.0
    short: float = 0.0


def after(state: Elastic, pressure: Pressure, now: float, planned: int) -> Elastic:
    """The state after a look at `now`; `planned` are the bytes at a share of one. Pure."""
    if pressure.level:
        state = replace(state, short=now)
        if now - state.changed < SETTLE:
            return state
        share = max(LEAST, state.share * KEEP[pressure.level])
        return replace(state, share=share, changed=now) if share < state.share else state
    room = pressure.free is None or pressure.free > 4 * STEP * planned
    if state.share < 1.0 and room and now - max(state.changed, state.short) >= CALM:
        return replace(state, share=min(1.0, state.share + STEP), changed=now)
    return state


class Governor:
    """Looks at the machine at most every second. `read` and `clock` are seams."""

    def __init__(
        self, planned: int, read: Callable[[], Pressure] = read_pressure, clock: Callable[[], float] = monotonic
    ):
        self._planned, self._read, self._clock = planned, read, clock
        self._looked = clock()
        self._state = Elastic(changed=self._looked - SETTLE, short=self._looked)

    def share(self) -> float:
        """Of the planned memory, to be used from now on."""
        now = self._clock()
        if now - self._looked >= LOOK:
            self._looked = now
            self._state = after(self._state, self._read(), now, self._planned)
        return self._state.share

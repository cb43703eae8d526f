"""Stops that stay until an operator clears them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from safe_rl_ros.types import ConfigError, Reason, StopCause, StopPersistsError

logger = logging.getLogger(__name__)

LEVELS = frozenset({StopCause.OPERATOR, StopCause.HEARTBEAT})
"""Causes that somebody outside asserts and releases; the filter finds the others itself."""


class StopLatch:
    """The causes that are latched, and which of the asserted ones still are. Safe to use from several threads.

    ``causes`` is in the order of latching. It is replaced, never changed, so that a decision may read it at any time.
    """

    def __init__(self) -> None:
        """Start with nothing latched."""
        self.causes: tuple[StopCause, ...] = ()
        self.changes = 0
        """How often a stop was latched or asserted; a decision that sees it move began before the stop."""
        self.cleared = False
        """Set by :meth:`clear` for the next decision, which takes it down."""
        self._details: dict[StopCause, str] = {}
        self._asserted: frozenset[StopCause] = frozenset()
        # Reentrant: a signal handler may latch in the middle of a latch of the same thread.
        self._lock = threading.RLock()

    @property
    def reason(self) -> Reason | None:
        """The reason of a decision now: the first cause's; None if nothing is latched."""
        causes = self.causes
        return causes[0].value if causes else None

    def latch(self, cause: StopCause, detail: str = "") -> None:
        """Latch a cause; one that is latched already keeps its place and its detail."""
        with self._lock:
            self.changes += 1
            if cause in self.causes:
                return
            self._details[cause] = detail
            self.causes = (*self.causes, cause)
        logger.warning("stop latched: %s", self.describe(cause))

    def set_asserted(self, cause: StopCause, asserted: bool, detail: str = "") -> None:
        """Follow a level input: asserting latches, releasing only lets a later clear succeed.

        Raises:
            ConfigError: nobody outside asserts this cause.
        """
        if cause not in LEVELS:
            expected = sorted(level.name for level in LEVELS)
            raise ConfigError(f"cause {cause.name} cannot be asserted, expected one of {expected}")
        with self._lock:
            self._asserted = self._asserted | {cause} if asserted else self._asserted - {cause}
            if asserted:
                self.latch(cause, detail)

    def describe(self, cause: StopCause) -> str:
        """Return cause and detail for people."""
        detail = self._details.get(cause, "")
        return f"{cause.name} ({detail})" if detail else cause.name

    def clear(self, persists: Callable[[StopCause], str | None]) -> None:
        """Release all causes, or none.

        Args:
            persists: says of a cause that the filter found itself what still speaks for it, None if nothing does.

        Raises:
            StopPersistsError: naming each cause that is still there.
        """
        with self._lock:
            problems = []
            for cause in self.causes:
                why = "still asserted" if cause in self._asserted else persists(cause)
                if why is not None:
                    problems.append(f"{self.describe(cause)}: {why}")
            if problems:
                raise StopPersistsError(f"stop stays latched: {'; '.join(problems)}")
            if self.causes:
                logger.warning("stop cleared, was: %s", ", ".join(map(self.describe, self.causes)))
                self.cleared = True  # before the causes go: a decision in between must see one of them
            self.causes = ()
            self._details.clear()

    def restore(self, cause: StopCause | None) -> None:
        """Latch exactly this, as a record says."""
        with self._lock:
            self.causes = () if cause is None else (cause,)
            self.cleared = False
            self._details.clear()

"""What happened to the filter from outside, as a topic: the inputs of its decisions that no sensor message holds.

A std_msgs/String on ``safety_filter/events`` of a bag, with the JSON of a :class:`FilterEvent`. Every event repeats
the whole setting (configuration, bundle, armed or not): the last one before a window is enough to replay the window.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, ValidationError

from safe_rl_ros.bags.flight_recorder import FlightRecorder
from safe_rl_ros.bags.message_types import STRING, BagError, string
from safe_rl_ros.config import StrictModel
from safe_rl_ros.safety.action_filter import ActionFilter
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.types import FloatArray

EVENTS_TOPIC = "safety_filter/events"
EVENTS_TYPE = STRING

MAX_EVENT_BYTES = 100_000
MAX_DETAIL = 1000

EventKind = Literal[
    "configured",
    "reconfigured",
    "activated",
    "deactivated",
    "bundle",
    "latched",
    "asserted",
    "released",
    "cleared",
]


class FilterEvent(StrictModel):
    """One event and the filter's setting after it. What is unknown is an error: it would be replayed wrong."""

    kind: EventKind = Field(
        description="configured: a new filter; reconfigured: other configuration while it lives; activated, "
        "deactivated; bundle: another model in force; latched: a stop latched by a call; asserted, released: a cause "
        "that persists began or ended; cleared: the latch was cleared."
    )
    time_ns: int = Field(description="When, on the clock of the decisions' tick_ns.")
    timing: Literal["realtime", "lockstep"] = Field(description="The node's timing.")
    robot_hash: str = Field(description="Hash of the robot spec.")
    config: FilterConfig = Field(description="The filter's configuration.")
    bundle: str = Field(description="Hash of the model in force, empty for none.")
    active: bool = Field(description="Armed.")
    cause: str | None = Field(default=None, description="Name of the StopCause, for latched, asserted and released.")
    detail: str = Field(default="", max_length=MAX_DETAIL)
    start: tuple[float, ...] | None = Field(default=None, description="activated: the start that was given.")


def read_event(text: str) -> FilterEvent:
    """Return the event in the text of a message.

    Raises:
        BagError: it is no event of this version.
    """
    if len(text) > MAX_EVENT_BYTES:
        raise BagError(f"filter event has {len(text)} characters, expected at most {MAX_EVENT_BYTES}")
    try:
        return FilterEvent.model_validate_json(text)
    except ValidationError as error:
        raise BagError(f"filter event is not one of this version: {error}") from error


class EventJournal:
    """Writes a filter's events to the flight recorder. Call it right after the change, on the filter's thread."""

    def __init__(
        self,
        recorder: FlightRecorder,
        topic: str,
        timing: Literal["realtime", "lockstep"],
        robot_hash: str,
        clock: Callable[[], int],
    ) -> None:
        """Remember what does not change; ``topic`` is the full name, ``clock`` the steady one of the decisions, ns."""
        self._recorder, self._topic, self._robot_hash, self._clock = recorder, topic, robot_hash, clock
        self._timing: Literal["realtime", "lockstep"] = timing

    def note(
        self,
        kind: EventKind,
        action_filter: ActionFilter,
        *,
        cause: str | None = None,
        detail: str = "",
        start: FloatArray | None = None,
    ) -> None:
        """Record an event; ``cause`` is the name of a StopCause, ``start`` (C,) what activate was given."""
        event = FilterEvent(
            kind=kind,
            time_ns=self._clock(),
            timing=self._timing,
            robot_hash=self._robot_hash,
            config=action_filter.config,
            bundle="" if action_filter.model is None else action_filter.model.hash,
            active=action_filter.active,
            cause=cause,
            detail=detail[:MAX_DETAIL],
            start=None if start is None else tuple(start.tolist()),
        )
        self._recorder.note(self._topic, lambda: string(event.model_dump_json()), event.time_ns)

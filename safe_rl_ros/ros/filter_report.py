"""What the filter node says about itself: ``~/state`` on change and twice a second, ``diagnostics`` at 1 Hz."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock
from rclpy.node import Node

from safe_rl_ros.ros import diagnostics, qos
from safe_rl_ros.ros.filter_loop import FilterLoop, LoopParts
from safe_rl_ros.ros.filter_status import Situation
from safe_rl_ros.ros.filter_watch import QosWatch
from safe_rl_ros.types import StopCause


class FilterReport:
    """Publishes state and diagnostics."""

    def __init__(
        self,
        node: Node,
        hardware: str,
        loop: FilterLoop,
        parts: LoopParts,
        situation: Callable[[], Situation],
        fixed: Mapping[str, object],
        steady: Clock,
        watch: QosWatch,
    ) -> None:
        """Create the publishers and the timer of the diagnostics.

        Args:
            node: owns them.
            hardware: name of the robot.
            loop: for what arrives, and when ticks are late.
            parts: what the loop works with.
            situation: what the node knows now.
            fixed: values that never change.
            steady: a clock that also runs while simulated time stands still.
            watch: for partners with unfit QoS.
        """
        self._node, self._hardware, self._loop = node, hardware, loop
        self._filter, self._swap, self._status = parts.action_filter, parts.swap, parts.status
        self._recorder, self._situation, self._fixed, self._watch = parts.recorder, situation, dict(fixed), watch
        self._state_topic = node.create_publisher(DiagnosticStatus, "~/state", qos.latched())
        self._diagnostics = node.create_publisher(DiagnosticArray, "diagnostics", qos.diagnostics())
        self._shown: tuple[StopCause, ...] = ()
        node.create_timer(diagnostics.PERIOD_S, self.publish_diagnostics, clock=steady)

    def publish_state(self, situation: Situation | None = None) -> None:
        """Publish ``~/state``."""
        now = situation or self._situation()
        self._shown = self._filter.causes
        fixed = {key: self._fixed[key] for key in ("timing", "spec_sha256")}
        values = self._status.state_values(now, self._filter, self._swap) | fixed
        level, text = self._status.judge_state(now, self._filter, self._swap)
        name = self._node.get_fully_qualified_name()
        self._state_topic.publish(diagnostics.status(name, self._hardware, level, text, values))

    def publish_state_if_changed(self) -> None:
        """Publish ``~/state`` where a stop was latched or cleared."""
        if self._filter.causes != self._shown:
            self.publish_state()

    def publish_diagnostics(self) -> None:
        """Publish ``diagnostics``."""
        ticker, assembler = self._loop.ticker, self._loop.inputs.assembler
        now = self._situation()
        values = {
            "state": now.lifecycle,
            "filter_state": self._filter.state.name,
            "stop": now.stop,
            "calibration": now.calibration,
            **self._status.values(),
            **{f"out_of_order.{sensor}": count for sensor, count in assembler.refused.items()},
            "time_jumps": assembler.jumps,
            "missed_ticks": 0 if ticker is None else ticker.missed,
            "worst_late_ms": 0.0 if ticker is None else ticker.worst_late_ns * 1e-6,
            "other_command_publishers": len(now.others),
            "bundle_swaps": self._swap.report.swaps,
            "bundle_rollbacks": self._swap.report.rollbacks,
            **{f"incompatible_qos.{topic}": count for topic, count in sorted(self._watch.incompatible.items())},
            **self._recorder.values(),
            **self._fixed,
        }
        level, text = self._status.judge(now, self._filter)
        item = diagnostics.status(self._node.get_fully_qualified_name(), self._hardware, level, text, values)
        self._diagnostics.publish(diagnostics.array_of(item, self._loop.ros_time_ns()))

"""Diagnostic messages (REP 107) from plain dicts."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from safe_rl_ros.ros.conversions import write_stamp

OK: bytes = DiagnosticStatus.OK
WARN: bytes = DiagnosticStatus.WARN
ERROR: bytes = DiagnosticStatus.ERROR
STALE: bytes = DiagnosticStatus.STALE

PERIOD_S = 1.0


def status(name: str, hardware: str, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticStatus:
    """Return one status; values become text."""
    result = DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware)
    result.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return result


def array_of(item: DiagnosticStatus, stamp_ns: int) -> DiagnosticArray:
    """Return a status as the array that goes to ``diagnostics``."""
    message = DiagnosticArray(status=[item])
    write_stamp(message.header.stamp, stamp_ns)
    return message


def values_of(item: DiagnosticStatus) -> dict[str, str]:
    """Return the values of a status by key."""
    return {str(pair.key): str(pair.value) for pair in item.values}

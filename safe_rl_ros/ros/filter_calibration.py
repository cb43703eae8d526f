"""Whether the threshold in force is the one that a certificate speaks of, and what depends on that. No ROS."""

from __future__ import annotations

from safe_rl_ros.bundle import Bundle
from safe_rl_ros.bundle.certificate import certificate_problems
from safe_rl_ros.safety.action_filter import ActionFilter, FilterConfig
from safe_rl_ros.types import BundleError

KEPT = 8
"""Answers that are remembered."""


class CalibrationGate:
    """Compares a bundle's certificate with the filter as it is configured now."""

    def __init__(self, action_filter: ActionFilter, control_rate_hz: float) -> None:
        """Require nothing yet."""
        self._filter = action_filter
        self._rate_hz = control_rate_hz
        self._known: dict[tuple[str, FilterConfig], list[str]] = {}
        self.required = False
        """Refuse to arm, and refuse bundles while armed, without a certificate that holds."""

    def problems(self, bundle: Bundle | None) -> list[str]:
        """Return why no certificate holds; empty: calibrated.

        Remembered, since all weights are hashed: ask in the thread that loads a bundle, and the control thread will
        find the answer.
        """
        config = self._filter.config
        if config.critic == "off":
            return ["there is no critic"]
        if bundle is None:
            return ["no bundle"]
        key = (bundle.hash, config)
        if key not in self._known:
            while len(self._known) >= KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[key] = certificate_problems(
                bundle, behaviour_hash=config.behaviour_hash, threshold=config.threshold, control_rate_hz=self._rate_hz
            )
        return self._known[key]

    def text(self, bundle: Bundle | None) -> str:
        """Return ``calibrated: ...`` with what is certified, or ``uncalibrated: ...`` with why not."""
        problems = self.problems(bundle)
        if problems or bundle is None or bundle.manifest.certificate is None:
            return f"uncalibrated: {', '.join(problems)}"
        return f"calibrated: {bundle.manifest.certificate.summary}"

    def check_arming(self, bundle: Bundle | None) -> None:
        """Raise :class:`BundleError` if a certificate is required and none holds."""
        if self.required and self.problems(bundle):
            raise BundleError(f"require_calibrated is set, and the filter is {self.text(bundle)}")

    def refuse(self, bundle: Bundle) -> str:
        """Return why this bundle may not take over while the filter is armed; empty if it may."""
        if self.required and self._filter.active and self.problems(bundle):
            return f"require_calibrated is set, and the bundle is {self.text(bundle)}"
        return ""

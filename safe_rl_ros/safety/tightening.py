"""Which changes of the configuration make the filter stricter, so that they are allowed while it is armed."""

from __future__ import annotations

from safe_rl_ros.safety.contracts import FilterConfig, SafetyModel
from safe_rl_ros.types import ConfigError

MAY_FALL = ("proposal_timeout_s", "observation_timeout_s", "critic_deadline_ms")
MAY_FALL_OR_BE_SET = ("threshold_off", "risk_abort", "max_consecutive_vetoes", "max_consecutive_overruns")
MAY_RISE = ("min_hold_cycles",)


def check_tightening(old: FilterConfig, new: FilterConfig, model: SafetyModel | None) -> None:
    """Check that ``new`` is at least as strict as ``old`` in everything.

    A ``threshold`` that was unset is the model's: it may be set to no more than that.

    Raises:
        ConfigError: naming the field that is looser, or that cannot be changed at all while the filter is armed.
    """
    for name in FilterConfig.model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if name == "threshold":
            before = (None if model is None else model.threshold) if before is None else before
            allowed, expected = after is not None and before is not None and after <= before, f"at most {before}"
        elif name in MAY_FALL:
            allowed, expected = after <= before, f"at most {before}"
        elif name in MAY_FALL_OR_BE_SET:
            allowed = after is not None and (before is None or after <= before)
            expected = "a number" if before is None else f"at most {before}"
        elif name in MAY_RISE:
            allowed, expected = after >= before, f"at least {before}"
        else:
            allowed, expected = False, f"{before!r}"
        if not allowed:
            raise ConfigError(f"{name} = {after!r} while the filter is armed, expected {expected}: deactivate it first")

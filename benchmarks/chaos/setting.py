"""The robot, the bundle and the numbers that the fault matrix works with.

The rover with a faster control rate and shorter timeouts, so that one fault takes a fraction of a second. The state
stands still but for the scan, which is drawn anew for every repetition: the observation that the filter had is then
known here, and the risk of every command can be asked again independently of what the filter says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.chaos.checks import Command, Limits
from benchmarks.ros_step import layers
from safe_rl_ros.bundle import Bundle, load_bundle, save_bundle
from safe_rl_ros.envs.observation import CommandMap, Observer
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.envs.tasks.hazard_nav import load_hazard_nav
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic
from safe_rl_ros.resources import find_resource
from safe_rl_ros.types import Float32Array, FloatArray, RobotState

RATE_HZ = 50.0
TIMEOUT_S = 0.1
"""Age limit of proposals and of each sensor."""
GRACE_PERIODS = 2
"""Periods from the end of a timeout to the stop deadline: one until the next tick, one for transport and load."""
HIDDEN = (64, 64)
GAIN = 3.0
ACCEPTED_SHARE = 0.7
"""The threshold passes this share of random commands."""
RISK_TOLERANCE = 1e-5
"""float32 sums differ between a batch of one and of a hundred."""
GOAL = np.array([1.0, 0.5])
CREATED = "2026-01-01T00:00:00+00:00"


def derive_robot(directory: Path, rate_hz: float, timeout_s: float) -> Path:
    """Write the rover's spec with another control rate and sensor timeouts; return the file."""
    content = yaml.safe_load(find_resource("rover.yaml", "config/robots").read_text(encoding="utf-8"))
    content["control_rate_hz"] = float(rate_hz)
    for sensor in content["sensors"].values():
        sensor["timeout_s"] = float(timeout_s)
    path = directory / f"rover_{rate_hz:g}hz.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def random_ranges(rng: np.random.Generator, rays: int) -> Float32Array:
    """Return a random scan (R,), m, as float32."""
    ranges: Float32Array = rng.uniform(0.2, 2.9, rays).astype(np.float32)
    return ranges


def make_state(spec: RobotSpec, stamp_ns: int, ranges: Float32Array) -> RobotState:
    """Return the state of a robot that stands at the origin."""
    joints = len(spec.joints)
    return RobotState(
        stamp_ns=stamp_ns,
        position=np.zeros(3),
        orientation=np.array([0.0, 0.0, 0.0, 1.0]),
        linear_velocity=np.zeros(3),
        angular_velocity=np.zeros(3),
        joint_position=np.zeros(joints),
        joint_velocity=np.zeros(joints),
        ranges=ranges,
    )


def read_twist(message: Any, names: Sequence[str]) -> tuple[float, ...]:
    """Return the axes called e.g. ``linear_x`` of a TwistStamped."""
    fields = (name.split("_") for name in names)
    return tuple(float(getattr(getattr(message.twist, vector), axis)) for vector, axis in fields)


def write_twist(message: Any, names: Sequence[str], values: Sequence[float], stamp_ns: int) -> Any:
    """Write the axes called e.g. ``linear_x`` and the stamp of a TwistStamped; return it."""
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    for name, value in zip(names, values, strict=True):
        vector, axis = name.split("_")
        setattr(getattr(message.twist, vector), axis, float(value))
    return message


@dataclass(frozen=True)
class Setting:
    """Files and objects of one run of the matrix."""

    directory: Path
    robot_file: Path
    spec: RobotSpec
    observer: Observer
    policy: GaussianPolicy
    critic: SafetyCritic
    threshold: float
    bundle_path: Path
    digest: str

    @property
    def period_s(self) -> float:
        """Control period, s."""
        return self.spec.period_ns * 1e-9

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the command axes."""
        return tuple(axis.name for axis in self.spec.command.axes)

    @property
    def limits(self) -> Limits:
        """What the checks hold commands to."""
        spec = self.spec
        return Limits(
            lower=tuple(spec.command_lower.tolist()),
            upper=tuple(spec.command_upper.tolist()),
            step=tuple((spec.command_rate * self.period_s).tolist()),
            stop=tuple(spec.command_stop.tolist()),
            period_ns=spec.period_ns,
            timeout_ns=round(spec.command.timeout_s * 1e9),
        )

    def observe(self, ranges: Float32Array) -> Float32Array:
        """Return what the filter makes of this scan."""
        return self.observer.observe(make_state(self.spec, 1, ranges), GOAL)

    def write(self, directory: Path, *, note: str, spec_hash: str | None = None, replace: bool = False) -> str:
        """Write the networks as a bundle whose hash depends on ``note`` only; return the hash."""
        return save_bundle(
            directory,
            self.policy,
            self.critic,
            threshold=self.threshold,
            threshold_mode="fixed",
            spec_hash=spec_hash or self.spec.hash,
            obs_names=self.observer.names,
            algorithm="benchmark",
            extra={"note": note},
            created=CREATED,
            replace=replace,
        )

    def load(self, directory: Path, digest: str) -> Bundle:
        """Load a bundle as the filter does. Raises BundleError."""
        return load_bundle(
            directory,
            spec_hash=self.spec.hash,
            obs_names=self.observer.names,
            expected_hash=digest,
            require_critic=True,
        )


def make_networks(
    obs_dim: int, act_dim: int, seed: int, hidden: Sequence[int] = HIDDEN
) -> tuple[GaussianPolicy, SafetyCritic]:
    """Return random networks."""
    rng = np.random.default_rng(seed)
    sizes: dict[str, Any] = {"obs_dim": obs_dim, "act_dim": act_dim, "hidden": list(hidden)}
    actor = layers(rng, [obs_dim, *hidden, act_dim]) | {"log_std": np.full(act_dim, -0.5)}
    critic = {k: v * GAIN for k, v in layers(rng, [obs_dim + act_dim, *hidden, 1], (1,)).items()}
    return (
        GaussianPolicy.from_arrays(actor, {"kind": "gaussian_policy", "state_dependent_std": False, **sizes}),
        SafetyCritic.from_arrays(
            critic, {"kind": "safety_critic", "members": 1, "aggregate": "mean", "std_factor": 0.0, **sizes}
        ),
    )


def make_setting(
    directory: Path,
    seed: int,
    rate_hz: float = RATE_HZ,
    timeout_s: float = TIMEOUT_S,
    hidden: Sequence[int] = HIDDEN,
    threshold: float | None = None,
) -> Setting:
    """Write robot spec and bundle into a directory; by default the threshold passes :data:`ACCEPTED_SHARE`."""
    robot_file = derive_robot(directory, rate_hz, timeout_s)
    spec = load_robot_spec(robot_file)
    observer = Observer(spec, load_hazard_nav("hazard_nav").observation)
    policy, critic = make_networks(observer.obs_dim, spec.act_dim, seed, hidden)
    if threshold is None:
        threshold = _threshold(spec, observer, critic, seed)
    path = directory / "bundle"
    setting = Setting(directory, robot_file, spec, observer, policy, critic, threshold, path, "")
    return replace(setting, digest=setting.write(path, note="in force"))


def _threshold(spec: RobotSpec, observer: Observer, critic: SafetyCritic, seed: int) -> float:
    rng = np.random.default_rng(seed)
    risks = []
    for _ in range(50):
        obs = observer.observe(make_state(spec, 1, random_ranges(rng, spec.sensors.scan.rays)), GOAL)
        risks.append(critic.risk(obs, rng.uniform(-1.0, 1.0, (200, spec.act_dim)).astype(np.float32)))
    return float(np.quantile(np.concatenate(risks), ACCEPTED_SHARE))


class RiskOracle:
    """Answers, from the scans that the base showed, whether the critic accepts a command."""

    def __init__(self, setting: Setting, age_s: float) -> None:
        """Remember no scan yet; ``age_s`` is the greatest age of a scan that the filter may rest a command on."""
        self._setting = setting
        self._map = CommandMap(setting.spec)
        self._age_ns = round(age_s * 1e9)
        self._shown: list[tuple[int, Float32Array]] = []

    def suits(self, ranges: Float32Array) -> bool:
        """Return True if the critic accepts slow commands under this scan and vetoes a good part of the others.

        The filter brakes where nothing is acceptable, and a robot that may not start shows nothing.
        """
        limits, setting = self._setting.limits, self._setting
        obs = setting.observe(ranges)
        slow = np.stack(np.meshgrid(*(np.linspace(-2 * step, 2 * step, 5) for step in limits.step)), -1).reshape(-1, 2)
        whole = [np.linspace(low, high, 9) for low, high in zip(limits.lower, limits.upper, strict=True)]
        every = np.stack(np.meshgrid(*whole), -1).reshape(-1, 2)
        accepted = self.risks(obs, every) <= setting.threshold
        return bool((self.risks(obs, slow) <= setting.threshold).all() and 0.3 <= accepted.mean() <= 0.8)

    def show(self, time_ns: int, ranges: Float32Array) -> None:
        """Note that this scan is shown from now on."""
        self._shown.append((time_ns, self._setting.observe(ranges)))
        del self._shown[:-4]

    def risks(self, obs: Float32Array, values: FloatArray) -> FloatArray:
        """Return the critic's risks (K,) of commands (K, C)."""
        return self._setting.critic.risk(obs, self._map.to_action(values).astype(np.float32))

    def acceptable(self, command: Command) -> bool:
        """Return True if the risk is acceptable under a scan that the filter could have had when it decided."""
        values = np.array([command.values])
        oldest_ns = command.sent_ns - self._age_ns
        ends_ns = [start for start, _ in self._shown[1:]] + [command.sent_ns]
        return any(
            self.risks(obs, values)[0] <= self._setting.threshold + RISK_TOLERANCE
            for (start_ns, obs), end_ns in zip(self._shown, ends_ns, strict=True)
            if start_ns <= command.sent_ns and end_ns >= oldest_ns
        )

"""Calibrate a run's veto threshold and certify it: ``safe-rl-ros calibrate``.

1. Record episodes of the run's policy without veto (twin or data set) and choose the threshold on the failing ones
   (:mod:`safe_rl_ros.safety.calibration`).
2. Run the policy behind the filter at that threshold on fresh episodes, and bound the failure probability from above.
3. Stamp threshold and certificate into a copy of the bundle.

The episodes of step 2 are drawn by a stream that depends on networks, filter behaviour and threshold: no threshold is
certified on episodes that another one was judged by.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from safe_rl_ros.bundle import Bundle, Certificate, certificate_problems, load_bundle, stamp_certificate
from safe_rl_ros.config import apply_overrides, build
from safe_rl_ros.envs.robot_spec import RobotSpec
from safe_rl_ros.safety.calibration import (
    Calibration,
    CalibrationError,
    Window,
    calibrate,
    failure_bound,
    required_failing,
)
from safe_rl_ros.safety.contracts import FilterConfig
from safe_rl_ros.training.calibration_report import make_report, plot_calibration
from safe_rl_ros.training.evaluation import Evaluation
from safe_rl_ros.training.risk_traces import Recording, Twin, read_recording, record_failing
from safe_rl_ros.training.run import write_json
from safe_rl_ros.training.session_config import ROBOTS_TASKS, SessionConfig
from safe_rl_ros.training.stored_run import load_run
from safe_rl_ros.types import BundleError, ConfigError, EpisodeStats

BUNDLE_NAME = "bundle_calibrated"
RECORDING, CERTIFYING = "failing episodes", "closed loop"

OnProgress = Callable[[str, int, int], None]
"""(what is being done, done, total), called after every episode."""


@dataclass(frozen=True)
class CalibrationRequest:
    """What to calibrate for.

    ``lead_steps``: None takes the decisions that the robot needs to come to a stop. ``window_steps``: None takes the
    critic's horizon 1/(1 - its discount), or the whole episode if ``whole_episode``. ``certify``: episodes in closed
    loop, None for none. ``max_episodes`` bounds the search for ``failing`` failing episodes.

    Raises:
        CalibrationError: ``failing`` is too few for the miss rate, or a number is out of range.
    """

    miss_rate: float = 0.05
    lead_steps: int | None = None
    window_steps: int | None = None
    whole_episode: bool = False
    failing: int = 200
    certify: int | None = 299
    confidence: float = 0.95
    seed: int = 0
    max_episodes: int = 20_000
    filter_overrides: tuple[str, ...] = ()
    """``key=value`` changes to the run's filter configuration; the certificate holds for the filter that they give."""

    def __post_init__(self) -> None:
        """Validate what would otherwise show only after minutes of episodes."""
        needed = required_failing(self.miss_rate)
        if self.failing < needed:
            raise CalibrationError(
                f"failing is {self.failing}, a miss rate of {self.miss_rate:g} needs at least {needed} failing episodes"
            )
        failure_bound(0, 1, self.confidence)
        if self.certify is not None and self.certify < 1:
            raise CalibrationError(f"certify is {self.certify}, expected at least 1 episode")
        if self.whole_episode and self.window_steps is not None:
            raise CalibrationError(f"window_steps is {self.window_steps}, expected None with whole_episode")

    def apply(self, config: SessionConfig) -> SessionConfig:
        """Return the run's configuration with the filter that is to be certified.

        Raises:
            ConfigError: an override is wrong, or asks for candidates that episodes in the twin do not have.
        """
        content = apply_overrides(config.filter.model_dump(mode="json"), self.filter_overrides)
        changed = build(FilterConfig, content, "filter overrides")
        if changed.candidates == "topic" and self.certify is not None:
            raise ConfigError("candidates = 'topic' cannot be certified: no policy in the twin lists its candidates")
        return config.model_copy(update={"filter": changed})

    def window(self, config: SessionConfig) -> Window:
        """Return the window, with what is None taken from the run's configuration."""
        lead = stopping_steps(config.robot_spec) if self.lead_steps is None else self.lead_steps
        length = self.window_steps
        if length is None and not self.whole_episode:
            # Those that learn from a robot's steps discount failures by a key of their own, offline ones by gamma.
            settings = config.algorithm.model_dump()
            length = max(1, round(1.0 / (1.0 - settings.get("safety_gamma", settings["gamma"]))))
        return Window(lead, length)


@dataclass(frozen=True)
class Outcome:
    """What a calibration found, and where it is; ``closed_loop`` and ``certificate`` None if it was not certified."""

    calibration: Calibration
    recording: Recording
    closed_loop: Evaluation | None
    certificate: Certificate | None
    report: dict[str, Any]
    files: list[Path]


def stopping_steps(spec: RobotSpec) -> int:
    """Return how many decisions the rate limits need from the fastest command to the stop command.

    A position stops the robot where it was sent: that is one decision.
    """
    if spec.command.positions:
        return 1
    far = np.maximum(np.abs(spec.command_upper - spec.command_stop), np.abs(spec.command_lower - spec.command_stop))
    steps = far / (spec.command_rate * spec.period_ns * 1e-9)
    return math.ceil(float(steps.max()) - 1e-9)


def calibrate_run(
    run: Path,
    request: CalibrationRequest,
    directory: Path,
    *,
    dataset: Path | None = None,
    on_step: Callable[[], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Calibrate the bundle of ``run`` and write ``calibration.json``, ``calibration.png`` and the stamped bundle.

    Args:
        run: directory of a finished run.
        request: what to calibrate for.
        directory: where the results go; an earlier calibration there is replaced.
        dataset: logged transitions of the run's policy without veto, instead of episodes in the twin.
        on_step: called before each step; may raise to stop, and then nothing is written.
        on_progress: called after each episode.

    Raises:
        ConfigError: the run or data set is wrong, or another policy made the data.
        CalibrationError: the episodes do not support the miss rate.
        BundleError: the bundle is wrong.
    """
    stored = load_run(run)
    if stored.simulated:
        raise ConfigError(
            f"run {run}: task {stored.task.name!r} is simulated and has no robot: a threshold is calibrated for a "
            f"robot's filter, expected a run of {ROBOTS_TASKS}"
        )
    config = request.apply(stored)
    twin = Twin(config)
    try:
        bundle = load_bundle(run / "bundle", spec_hash=twin.spec.hash, obs_names=twin.obs_names)
        if bundle.critic is None:
            raise ConfigError(f"run {run} ({config.algorithm.name}) has no safety critic, expected one to calibrate")
        recording = _record(twin, bundle, config, run, dataset, request, on_step, on_progress)
        calibration = calibrate(
            recording.traces, request.miss_rate, request.window(config), confidence=request.confidence
        )
        closed_loop = certificate = None
        if request.certify is not None:
            closed_loop = run_closed_loop(
                twin,
                bundle,
                config.filter,
                calibration.threshold,
                request,
                recording.seeds,
                on_step=on_step,
                on_progress=_phase(on_progress, CERTIFYING),
            )
            certificate = make_certificate(calibration, closed_loop, bundle, config, request)
    finally:
        twin.close()
    report = make_report(calibration, recording, closed_loop, certificate, request.seed)
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / "calibration.json", directory / "calibration.png"]
    if certificate is not None:
        files.append(_stamp(run / "bundle", directory / BUNDLE_NAME, bundle, config, certificate))
    write_json(files[0], report)
    plot_calibration(calibration, files[1])
    return Outcome(calibration, recording, closed_loop, certificate, report, files)


def _record(
    twin: Twin,
    bundle: Bundle,
    config: SessionConfig,
    run: Path,
    dataset: Path | None,
    request: CalibrationRequest,
    on_step: Callable[[], None] | None,
    on_progress: OnProgress | None,
) -> Recording:
    """Return episodes without veto, from the data set if there is one."""
    if dataset is None:
        return record_failing(
            twin,
            bundle,
            config.filter,
            request.failing,
            seed=request.seed,
            max_episodes=request.max_episodes,
            on_step=on_step,
            on_progress=_phase(on_progress, RECORDING),
        )
    recording = read_recording(dataset, bundle)
    if request.certify is not None and not recording.of_policy:
        raise ConfigError(
            f"data set {dataset} was not made by the policy of {run}: its miss rate would certify another policy; "
            "--no-certify shows the threshold without stamping it"
        )
    return recording


def run_closed_loop(
    twin: Twin,
    bundle: Bundle,
    config: FilterConfig,
    threshold: float,
    request: CalibrationRequest,
    avoid: frozenset[int],
    *,
    on_step: Callable[[], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run ``request.certify`` fresh episodes with the filter enforcing ``threshold``; none has a seed in ``avoid``.

    Raises:
        CalibrationError: ``request.certify`` is None.
    """
    if request.certify is None:
        raise CalibrationError("certify is None, expected a number of episodes")
    enforcing = config.model_copy(update={"mode": "enforce", "critic": "enforce", "threshold": threshold})
    epoch = certification_stream(bundle, enforcing, threshold)
    stats: list[EpisodeStats] = []
    latencies: list[float] = []
    start = time.perf_counter()
    for _, figures, decisions in twin.episodes(
        bundle, enforcing, seed=request.seed, epoch=epoch, avoid=avoid, on_step=on_step
    ):
        stats.append(figures)
        latencies += [decision.latency_s for decision in decisions]
        if on_progress is not None:
            on_progress(len(stats), request.certify)
        if len(stats) == request.certify:
            break
    return Evaluation(stats, latencies, sum(s.length for s in stats) / max(time.perf_counter() - start, 1e-9))


def certification_stream(bundle: Bundle, config: FilterConfig, threshold: float) -> int:
    """Return the number of the episode stream that certifies these networks, this behaviour and this threshold."""
    content = [asdict(bundle.component_hashes()), config.behaviour_hash, threshold.hex()]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()
    return 2**64 + int.from_bytes(digest[:8], "little")


def make_certificate(
    calibration: Calibration,
    closed_loop: Evaluation,
    bundle: Bundle,
    config: SessionConfig,
    request: CalibrationRequest,
) -> Certificate:
    """Return the certificate; with no safe episode the false-veto rate is unknown and stated as 1."""
    failures, episodes = sum(e.failure for e in closed_loop.episodes), len(closed_loop.episodes)
    hashes, spec = bundle.component_hashes(), config.robot_spec
    if hashes.critic is None:
        raise ConfigError("the bundle has no safety critic, so there is nothing to certify")
    return Certificate(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        task=config.task.name,
        seed=request.seed,
        miss_rate=calibration.miss_rate,
        failing_episodes=calibration.failing,
        order=calibration.order,
        lead_steps=calibration.window.lead_steps,
        window_steps=calibration.window.length_steps,
        threshold=calibration.threshold,
        false_veto_rate=calibration.step_veto_rate if calibration.safe else 1.0,
        safe_episodes=calibration.safe,
        closed_loop_episodes=episodes,
        closed_loop_failures=failures,
        confidence=calibration.confidence,
        failure_bound=failure_bound(failures, episodes, calibration.confidence),
        policy_sha256=hashes.policy,
        critic_sha256=hashes.critic,
        normaliser_sha256=hashes.normaliser,
        filter_behaviour_hash=config.filter.behaviour_hash,
        robot_spec_hash=spec.hash,
        control_rate_hz=spec.control_rate_hz,
    )


def _phase(on_progress: OnProgress | None, name: str) -> Callable[[int, int], None] | None:
    return None if on_progress is None else lambda done, total: on_progress(name, done, total)


def _stamp(source: Path, target: Path, bundle: Bundle, config: SessionConfig, certificate: Certificate) -> Path:
    """Write the bundle with its certificate, load it again, and check that the certificate holds there."""
    stamp_certificate(source, target, certificate, replace=True)
    spec = config.robot_spec
    problems = certificate_problems(
        load_bundle(target, spec_hash=spec.hash, obs_names=bundle.manifest.obs_names),
        behaviour_hash=config.filter.behaviour_hash,
        threshold=None,
        control_rate_hz=spec.control_rate_hz,
    )
    if problems:
        raise BundleError(f"bundle {target} was stamped, but its certificate does not hold: {'; '.join(problems)}")
    return target

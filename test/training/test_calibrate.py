from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from calibration_helpers import bundle_of, dataset, minari_dataset, write_run
from typer.testing import CliRunner

from safe_rl_ros.algorithms.offline.fisor import FISORConfig
from safe_rl_ros.algorithms.offline.safety_critic import SafetyCriticOfflineConfig
from safe_rl_ros.bundle import certificate_problems, load_bundle
from safe_rl_ros.cli import app
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.safety.action_filter import FilterConfig
from safe_rl_ros.safety.calibration import CalibrationError, Window, calibrate
from safe_rl_ros.training import calibrate as calibrate_module
from safe_rl_ros.training.calibrate import (
    CERTIFYING,
    RECORDING,
    CalibrationRequest,
    calibrate_run,
    certification_stream,
    run_closed_loop,
    stopping_steps,
)
from safe_rl_ros.training.risk_traces import CALIBRATION_EPOCH, Twin, read_recording
from safe_rl_ros.training.rollout import StopRequestedError
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.training.stored_run import load_run
from safe_rl_ros.types import ConfigError

QUICK = CalibrationRequest(miss_rate=0.25, failing=12, certify=15, max_episodes=200)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "driver")


@pytest.fixture(scope="module")
def config(run: Path) -> SessionConfig:
    return load_run(run)


@pytest.fixture(scope="module")
def calibrated(run: Path, tmp_path_factory: pytest.TempPathFactory):
    """The outcome of the whole command, its directory, and what it said on the way."""
    said: list[tuple[str, int, int]] = []
    directory = tmp_path_factory.mktemp("out")
    outcome = calibrate_run(run, QUICK, directory, on_progress=lambda *now: said.append(now))
    return outcome, directory, said


def test_the_filter_at_the_threshold_averts_failures(calibrated) -> None:
    outcome, _, _ = calibrated
    assert outcome.recording.failing == QUICK.failing
    assert outcome.recording.traces[-1].failed  # it ends with the last failure asked for
    bare = outcome.recording.evaluation.summary()
    filtered = outcome.closed_loop.summary()
    assert bare["veto_rate"] == 0.0
    assert filtered["veto_rate"] > 0.02
    assert filtered["failures_per_episode"] < 0.5 * bare["failures_per_episode"]


def test_the_stamped_bundle_holds_the_certificate_of_what_was_run(calibrated, config: SessionConfig) -> None:
    outcome, directory, _ = calibrated
    names = make_robot_env(config.robot_spec, config.task).observer.names
    stamped = load_bundle(directory / "bundle_calibrated", spec_hash=config.robot_spec.hash, obs_names=names)
    certificate = stamped.manifest.certificate
    assert stamped.threshold == certificate.threshold == outcome.calibration.threshold
    assert (certificate.failing_episodes, certificate.order, certificate.miss_rate) == (12, 3, 0.25)
    assert (certificate.lead_steps, certificate.window_steps) == (3, 10)
    failures = sum(e.failure for e in outcome.closed_loop.episodes)
    assert (certificate.closed_loop_episodes, certificate.closed_loop_failures) == (15, failures)
    assert certificate.failure_bound > failures / 15

    def problems(**changes):
        use = {"behaviour_hash": config.filter.behaviour_hash, "threshold": None, "control_rate_hz": 10.0}
        return certificate_problems(stamped, **(use | changes))

    assert problems() == []
    other = config.filter.model_copy(update={"max_samples": 7})
    assert problems(behaviour_hash=other.behaviour_hash)
    assert problems(control_rate_hz=20.0)


def test_the_report_says_what_was_found(calibrated) -> None:
    outcome, directory, _ = calibrated
    report = json.loads((directory / "calibration.json").read_text())
    assert report == json.loads(json.dumps(outcome.report))
    assert report["threshold"] == outcome.calibration.threshold
    assert report["closed_loop"]["episodes"] == 15
    assert report["without_veto"]["failures"] == 12
    assert report["failing_episodes"] + report["safe_episodes"] == report["without_veto"]["episodes"]
    assert 0 < report["false_veto_rate_steps"] < report["false_veto_rate_episodes"] <= 1
    at = report["curves"]["threshold"].index(report["threshold"])
    assert report["curves"]["miss_rate"][at] == pytest.approx(2 / 12)  # k - 1 of n are below s_(k)
    assert (directory / "calibration.png").read_bytes().startswith(b"\x89PNG")


def test_progress_counts_failing_episodes_and_then_closed_loop_ones(calibrated) -> None:
    _, _, said = calibrated
    phases = [phase for phase, _, _ in said]
    assert phases == sorted(phases, key=[RECORDING, CERTIFYING].index)
    assert [now for now in said if now[0] == RECORDING][-1] == (RECORDING, 12, 12)
    assert [done for phase, done, _ in said if phase == CERTIFYING] == list(range(1, 16))


def test_certification_avoids_seeds_and_depends_on_the_threshold(run: Path, config: SessionConfig) -> None:
    twin = Twin(config)
    bundle = bundle_of(run, twin)
    one, two = (certification_stream(bundle, config.filter, t) for t in (0.25, np.nextafter(0.25, 0)))
    changed = config.filter.model_copy(update={"fallback_mode": "brake"})
    assert len({one, two, certification_stream(bundle, changed, 0.25)}) == 3
    assert one == certification_stream(bundle, config.filter, 0.25)
    watching = config.filter.model_copy(update={"critic": "off"})

    def seeds(avoid: frozenset[int]) -> list[int]:
        stream = twin.episodes(bundle, watching, seed=0, epoch=one, avoid=avoid)
        return [next(stream)[0] for _ in range(3)]

    every = seeds(frozenset())
    assert seeds(frozenset(every[:1]))[:2] == every[1:]
    twin.close()


def test_closed_loop_runs_its_own_stream_and_no_recorded_seed(run: Path, config: SessionConfig) -> None:
    asked: dict[str, object] = {}

    class Spy(Twin):
        def episodes(self, bundle, config, **how):
            asked.update(how)
            return super().episodes(bundle, config, **how)

    twin = Spy(config)
    bundle = bundle_of(run, twin)
    request, avoid = dataclasses.replace(QUICK, certify=1, seed=7), frozenset({1, 2})
    run_closed_loop(twin, bundle, config.filter, 0.25, request, avoid)
    twin.close()
    assert (asked["seed"], asked["avoid"]) == (7, avoid)
    assert asked["epoch"] == certification_stream(bundle, config.filter, 0.25) > CALIBRATION_EPOCH


def test_closed_loop_enforces_even_if_the_run_only_watched(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "filter.critic=shadow")
    config = load_run(run)
    twin = Twin(config)
    request = dataclasses.replace(QUICK, certify=3)
    result = run_closed_loop(twin, bundle_of(run, twin), config.filter, 0.05, request, frozenset())
    twin.close()
    assert len(result.episodes) == 3
    assert sum(e.vetoes for e in result.episodes) > 0


def test_a_stop_request_writes_nothing(run: Path, tmp_path: Path) -> None:
    steps = iter(range(1000))

    def stop() -> None:
        if next(steps) == 100:
            raise StopRequestedError

    with pytest.raises(StopRequestedError):
        calibrate_run(run, QUICK, tmp_path / "out", on_step=stop)
    assert not (tmp_path / "out").exists()


def test_stopping_steps_are_the_slowest_axis(config: SessionConfig) -> None:
    assert stopping_steps(config.robot_spec) == 3  # 1 m/s at .4 a step; the yaw rate needs 2


def test_window_defaults_come_from_the_run(config: SessionConfig) -> None:
    assert QUICK.window(config) == Window(3, 10)  # the horizon of safety_gamma .9
    assert dataclasses.replace(QUICK, whole_episode=True).window(config) == Window(3, None)
    assert dataclasses.replace(QUICK, lead_steps=0, window_steps=4).window(config) == Window(0, 4)


@pytest.mark.parametrize("kind", [SafetyCriticOfflineConfig, FISORConfig])
def test_an_offline_critics_window_is_the_horizon_of_its_gamma(kind, config: SessionConfig) -> None:
    settings = kind(gamma=0.95)
    assert QUICK.window(config.model_copy(update={"algorithm": settings})) == Window(3, 20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"failing": 2}, "needs at least 3 failing"),
        ({"miss_rate": 0.0}, "miss rate is 0.0"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"certify": 0}, "certify is 0"),
        ({"whole_episode": True, "window_steps": 5}, "window_steps is 5"),
    ],
)
def test_impossible_requests_are_refused_before_any_episode(changes, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        dataclasses.replace(QUICK, **changes)


def test_a_run_without_critic_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", critic=False)
    with pytest.raises(ConfigError, match="has no safety critic"):
        calibrate_run(run, QUICK, tmp_path)


def test_calibrating_on_a_data_set_certifies_in_the_twin(run: Path, config, tmp_path: Path) -> None:
    request = dataclasses.replace(QUICK, lead_steps=0, certify=2, failing=4)
    outcome = calibrate_run(run, request, tmp_path / "out", dataset=dataset(run, tmp_path / "data.npz"))
    twin = Twin(config)
    recording = read_recording(tmp_path / "data.npz", bundle_of(run, twin))
    twin.close()
    assert outcome.calibration.threshold == calibrate(recording.traces, 0.25, Window(0, 10)).threshold
    assert outcome.report["dropped_episodes"] == 1
    assert outcome.report["without_veto"] is None
    assert (tmp_path / "out" / "bundle_calibrated").is_dir()


def test_a_data_set_with_vetoes_is_refused(run: Path, tmp_path: Path) -> None:
    flags = np.zeros(33, bool)
    flags[3] = True
    with pytest.raises(ConfigError, match="replaced the command in 1 of 33 rows"):
        calibrate_run(run, QUICK, tmp_path, dataset=dataset(run, tmp_path / "data.npz", intervened=flags))


def test_data_of_another_policy_cannot_be_certified(run: Path, tmp_path: Path) -> None:
    unknown = dataset(run, tmp_path / "data.npz", behaviour_std=np.zeros((33, 2), np.float32))
    request = dataclasses.replace(QUICK, lead_steps=0)
    with pytest.raises(ConfigError, match="was not made by the policy of"):
        calibrate_run(run, request, tmp_path / "out", dataset=unknown)
    outcome = calibrate_run(run, dataclasses.replace(request, certify=None), tmp_path / "out", dataset=unknown)
    assert outcome.certificate is None
    assert outcome.report["made_by_this_policy"] is False
    assert not (tmp_path / "out" / "bundle_calibrated").exists()


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_command_writes_its_results_and_replaces_older_ones(run: Path, tmp_path: Path) -> None:
    sizes = ["--miss-rate", 0.5, "--failing", 3, "--certify", 2, "-o", tmp_path]
    for _ in range(2):
        result = invoke("calibrate", run, *sizes)
        assert result.exit_code == 0, result.output
    assert "in 2 episodes" in result.output
    assert {path.name for path in tmp_path.iterdir()} == {"calibration.json", "calibration.png", "bundle_calibrated"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "--run", "{run}"], "is a run already"),
        (["{tmp}/data.npz"], "needs --run"),
        (["{tmp}/nothing"], "does not exist, expected the directory of a run or a data set"),
        (["{tmp}"], "is not the directory of a run"),
        (["{tmp}/drives"], "needs --run"),
        (["{tmp}", "--run", "{run}"], "is no data set"),
        (["{run}", "--failing", "5"], "needs at least 19"),
    ],
)
def test_command_refuses_with_one_clear_error(arguments: list[str], message: str, run: Path, tmp_path: Path) -> None:
    dataset(run, tmp_path / "data.npz")
    minari_dataset(run, tmp_path / "drives")
    result = invoke("calibrate", *(a.format(run=run, tmp=tmp_path) for a in arguments))
    assert isinstance(result.exception, ConfigError | CalibrationError)
    assert message in str(result.exception)


def test_command_takes_a_minari_data_set(run: Path, tmp_path: Path) -> None:
    drives = minari_dataset(run, tmp_path / "drives")
    sizes = ["--miss-rate", 0.25, "--lead", 0, "--certify", 2, "-o", tmp_path / "out"]
    result = invoke("calibrate", drives, "--run", run, *sizes)
    assert result.exit_code == 0, result.output
    assert "failing / safe episodes" in result.output
    assert (tmp_path / "out" / "bundle_calibrated").is_dir()


def test_command_tells_when_the_data_came_from_elsewhere(run: Path, tmp_path: Path) -> None:
    unknown = dataset(run, tmp_path / "data.npz", behaviour_std=np.zeros((33, 2), np.float32))
    result = invoke(
        *("calibrate", unknown, "--run", run, "--miss-rate", 0.25, "--lead", 0, "--no-certify", "-o", tmp_path / "out")
    )
    assert result.exit_code == 0, result.output
    assert "was not made by this run's policy" in result.output


def test_another_filter_than_the_runs_is_what_is_certified(run: Path, tmp_path: Path) -> None:
    changed = ("candidates=around", "max_samples=8", "fallback_mode=brake")
    request = dataclasses.replace(QUICK, filter_overrides=changed)
    outcome = calibrate_run(run, request, tmp_path / "out")
    mine = load_run(run).filter
    deployed = FilterConfig(candidates="around", max_samples=8, fallback_mode="brake")
    assert outcome.certificate is not None
    assert outcome.certificate.filter_behaviour_hash == deployed.behaviour_hash != mine.behaviour_hash


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("candidates=topic", "no policy in the twin lists"),
        ("candidates=magic", "candidates"),
        ("speed=1", "unknown key"),
    ],
)
def test_a_filter_that_cannot_be_certified_is_refused(override: str, message: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        calibrate_run(run, dataclasses.replace(QUICK, filter_overrides=(override,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_stamp_that_does_not_hold_is_an_error(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate_module, "certificate_problems", lambda *args, **kwargs: ["critic differs"])
    request = dataclasses.replace(QUICK, miss_rate=0.5, failing=2, certify=1)
    with pytest.raises(calibrate_module.BundleError, match="critic differs"):
        calibrate_run(run, request, tmp_path / "out")

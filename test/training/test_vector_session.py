import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_trainer import assert_same_run
from vector_fakes import ScriptedTwin, tiny_simulated

from safe_rl_ros.algorithms import make_algorithm
from safe_rl_ros.training.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.training.run import StopFlag, prepare_directory, train
from safe_rl_ros.training.stored_run import evaluate_run
from safe_rl_ros.training.vector_session import VectorSession
from safe_rl_ros.types import BundleError, ConfigError

FAST_CRITIC = ("algorithm.critic_updates=5", "algorithm.critic_batch_size=32")
ALGORITHMS = [("trpo", ()), ("csc", (*FAST_CRITIC, "algorithm.fixed_threshold=0.05"))]


def scripted(config: Any, directory: Path) -> VectorSession:
    return VectorSession(config, directory, env=ScriptedTwin(config.training.num_envs))


@pytest.mark.parametrize(("algorithm", "extra"), ALGORITHMS)
def test_resume_equals_an_uninterrupted_run(algorithm: str, extra: tuple[str, ...], tmp_path: Path) -> None:
    config = tiny_simulated(algorithm, *extra, "task.max_episode_steps=33")
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    assert train(config, whole)["finished"]
    parts = prepare_directory(config, tmp_path / "parts", resume=False)
    train(config, parts, max_epochs=1)
    prepare_directory(config, tmp_path / "parts", resume=True)
    train(config, parts, max_epochs=2)
    train(config, parts)
    assert_same_run(whole, parts)
    episodes = read_csv(whole / "episodes.csv")
    assert [e["length"] for e in episodes] == [33.0] * 4  # 80 steps in each of two environments
    assert [e["step"] for e in episodes] == [66, 66, 132, 132]
    assert [e["epoch"] for e in episodes] == [1, 1, 3, 3]  # none ended in the epoch in which it began


def test_resume_after_a_stop_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    config = tiny_simulated("trpo", "task.max_episode_steps=33")
    whole = prepare_directory(config, tmp_path / "whole", resume=False)
    train(config, whole)
    parts = prepare_directory(config, tmp_path / "parts", resume=False)
    flag, calls = StopFlag(), []
    check = flag.check

    def check_and_stop() -> None:
        calls.append(1)
        if len(calls) == 37:  # epoch 1, the 17th of its 20 steps: after an episode ended in it
            flag.request()
        check()

    flag.check = check_and_stop  # type: ignore[method-assign]
    summary = train(config, parts, flag=flag)
    assert (summary["finished"], summary["epochs"]) == (False, 1)
    assert len(read_csv(parts / "episodes.csv")) == 0
    train(config, parts)
    assert_same_run(whole, parts)


def test_a_stopped_session_goes_on_in_the_same_process(tmp_path: Path) -> None:
    config = tiny_simulated()
    algorithm = make_algorithm(config.algorithm, 2, 2, 0)

    def collected(stop_first: bool) -> Any:
        session = scripted(config, tmp_path)
        session.deploy(algorithm, 0)
        session.collect(algorithm, 8, seed=0, epoch=0)
        if stop_first:
            calls: list[int] = []

            def stop() -> None:
                calls.append(1)
                if len(calls) == 3:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                session.collect(algorithm, 8, seed=0, epoch=1, on_step=stop)
        return session.collect(algorithm, 8, seed=0, epoch=1)

    plain, stopped = collected(False), collected(True)
    assert plain.episodes == stopped.episodes
    for name in plain.batch.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(plain.batch, name), getattr(stopped.batch, name), err_msg=name)


def test_without_a_state_to_keep_fresh_episodes_begin_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tiny_simulated()
    twins: list[ScriptedTwin] = []

    def unresumable(config: Any, directory: Path) -> VectorSession:
        twins.append(ScriptedTwin(2, resumable=False))
        return VectorSession(config, directory, env=twins[-1])

    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory, unresumable, max_epochs=2)
    path = latest_checkpoint(directory / "checkpoints")
    assert path is not None
    assert load_checkpoint(path).session == {}
    with caplog.at_level(logging.INFO):
        summary = train(config, directory, unresumable)
    assert "fresh ones begin" in caplog.text
    assert summary["finished"]
    assert len(twins[0].seeds) == len(twins[1].seeds) == 1  # once each: episodes go on over the epochs' ends
    assert twins[0].seeds != twins[1].seeds  # the fresh episodes are new ones


def test_episodes_of_another_number_of_environments_are_refused(tmp_path: Path) -> None:
    config = tiny_simulated()
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory, scripted, max_epochs=1)
    with pytest.raises(ConfigError, match=r"another training\.num_envs"):
        prepare_directory(tiny_simulated("trpo", "training.num_envs=4"), tmp_path, resume=True)
    prepare_directory(tiny_simulated("trpo", "training.env_threads=2"), tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="shape"):
        train(tiny_simulated("trpo", "training.num_envs=4"), directory, scripted)
    with pytest.raises(ConfigError, match=r"expected a multiple of training\.num_envs"):
        tiny_simulated("trpo", "training.num_envs=3")
    session = scripted(config, directory)
    algorithm = make_algorithm(config.algorithm, 2, 2, 0)
    session.deploy(algorithm, 0)
    with pytest.raises(ConfigError, match="7 steps per epoch cannot be shared by 2 environments"):
        session.collect(algorithm, 7, seed=0, epoch=0)


def test_nothing_runs_before_something_is_deployed(tmp_path: Path) -> None:
    config = tiny_simulated()
    session = scripted(config, tmp_path)
    with pytest.raises(BundleError, match="deploy"):
        session.collect(make_algorithm(config.algorithm, 2, 2, 0), 8, seed=0, epoch=0)
    with pytest.raises(BundleError, match="deploy"):
        session.evaluate(1, seed=0)


def test_evaluation_has_layouts_of_its_own_that_depend_on_its_seed(tmp_path: Path) -> None:
    config = tiny_simulated()
    algorithm = make_algorithm(config.algorithm, 2, 2, 0)
    twin = ScriptedTwin(2)
    session = VectorSession(config, tmp_path, env=twin)
    session.deploy(algorithm, 0)
    for seed in (0, 1, 0):
        session.collect(algorithm, 8, seed=seed, epoch=0)
        session.evaluate(3, seed=seed)
    first, evaluated, second, other, again, repeated = twin.seeds
    assert (again, repeated) == (first, evaluated)
    assert len({first, evaluated, second, other}) == 4


def test_a_finished_run_is_evaluated_from_its_bundle(tmp_path: Path) -> None:
    config = tiny_simulated("csc", *FAST_CRITIC, "task.max_episode_steps=30")
    directory = prepare_directory(config, tmp_path, resume=False)
    train(config, directory)
    assert not (directory / "robot.yaml").exists()
    result = evaluate_run(directory, VectorSession, 5, seed=3)
    again = evaluate_run(directory, VectorSession, 5, seed=3)
    other = evaluate_run(directory, VectorSession, 5, seed=4)
    assert result.episodes == again.episodes != other.episodes
    figures = result.summary()
    assert figures["episodes"] == 5
    assert figures["steps"] == 150
    for name in ("return", "cost", "violations", "score"):
        low, high = figures[f"{name}_ci95"]
        mean = figures["score" if name == "score" else f"{name}_mean"]
        assert low <= mean <= high
    assert figures["cost_cvar"] >= figures["cost_mean"]
    assert figures["failures_ci95"][0] <= figures["failures_per_episode"] <= figures["failures_ci95"][1]


def test_the_recovery_policy_of_a_run_lies_beside_its_bundle_and_acts_in_its_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safe_rl_ros.algorithms.csc import CSC

    other = make_algorithm(tiny_simulated("trpo").algorithm, 24, 2, 99).policy()
    monkeypatch.setattr(CSC, "recovery", lambda self: other)
    always = "algorithm.fixed_threshold=0"  # a sigmoid is never 0: every proposal is vetoed
    config = tiny_simulated("csc", *FAST_CRITIC, always, "task.max_episode_steps=30")
    directory = prepare_directory(config, tmp_path, resume=False)
    summary = train(config, directory)
    assert summary["training"]["veto_rate"] == 1.0
    buffer = np.load(directory / "transitions.npz")
    np.testing.assert_allclose(buffer["action_executed"], other.distribution(buffer["obs"])[0], atol=1e-5)
    monkeypatch.undo()
    with VectorSession(config) as session:
        session.deploy_bundle(directory / "bundle")
        session.collect(make_algorithm(config.algorithm, 24, 2, 0), 8, seed=0, epoch=0)
        recovered = session.collect(make_algorithm(config.algorithm, 24, 2, 0), 8, seed=0, epoch=1).batch
    np.testing.assert_allclose(recovered.action_executed, other.distribution(recovered.obs)[0], atol=1e-5)

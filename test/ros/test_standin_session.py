"""From the twin onto a robot, small: trained in process, then stand-in, filter, actor and learner as processes."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("pybullet")
pytestmark = pytest.mark.ros

from ruamel.yaml import YAML  # noqa: E402
from test_actor_session import NAME, STEPS, wait, write_session  # noqa: E402

from benchmarks.sim_to_real_ros import run_session, spool_reader  # noqa: E402
from safe_rl_ros.bundle import load_bundle, save_bundle  # noqa: E402
from safe_rl_ros.config import read_yaml  # noqa: E402
from safe_rl_ros.envs.observation import Observer  # noqa: E402
from safe_rl_ros.envs.tasks.hazard_nav import HazardNav  # noqa: E402
from safe_rl_ros.inference import GaussianPolicy, SafetyCritic  # noqa: E402
from safe_rl_ros.ros.actor_messages import Deployment  # noqa: E402
from safe_rl_ros.ros.actor_session import SPOOL, ActorLink  # noqa: E402
from safe_rl_ros.ros.bundle_loader import Announcement  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments  # noqa: E402
from safe_rl_ros.training.run import open_session, prepare_directory, train  # noqa: E402
from safe_rl_ros.training.session_config import load_session_config  # noqa: E402

ARENA = 3


def constant_bundle(directory, config, ahead):
    """Write a bundle that always proposes the action ``ahead`` on the first axis and that nobody vetoes."""
    spec, names = config.robot_spec, Observer(config.robot_spec, config.robot_task.observation).names
    sizes = {"obs_dim": len(names), "act_dim": 2, "hidden": [2]}
    arrays = {"weight_0": np.zeros((len(names), 2)), "bias_0": np.zeros(2), "weight_1": np.zeros((2, 2))}
    arrays |= {"bias_1": np.arctanh([ahead, 0.0]), "log_std": np.full(2, -4.0)}
    policy = GaussianPolicy.from_arrays(arrays, {"kind": "gaussian_policy", "state_dependent_std": False, **sizes})
    layers = {"weight_0": np.zeros((1, len(names) + 2, 2)), "bias_0": np.zeros((1, 2))}
    layers |= {"weight_1": np.zeros((1, 2, 1)), "bias_1": np.zeros((1, 1))}
    kind = {"kind": "safety_critic", "members": 1, "aggregate": "mean", "std_factor": 0.0}
    critic = SafetyCritic.from_arrays(layers, {**kind, **sizes})
    fixed = {"threshold": 1.0, "threshold_mode": "fixed", "spec_hash": spec.hash, "obs_names": names}
    digest = save_bundle(directory, policy, critic, algorithm="test", **fixed)
    return Deployment(*2 * (Announcement(str(directory), digest),))


def away_from_the_first_goal(config):
    """Return the action on the first axis, of -.4 m/s or .4 m/s, that drives away from where the goals begin."""
    spec = config.robot_spec
    layout = HazardNav(config.robot_task, spec.base_radius_m).layout(ARENA)
    x, y, yaw = layout.start
    ahead = float((layout.goals[0] - (x, y)) @ (np.cos(yaw), np.sin(yaw)))
    axis = spec.axis_index["linear_x"]
    low, high = spec.command_lower[axis], spec.command_upper[axis]
    return tuple((2.0 * speed - low - high) / (high - low) for speed in (0.0, -0.4 * np.sign(ahead)))


def start_robot(processes, directory, config):
    files = {"robot": str(directory / "robot.yaml"), "task": str(directory / "task.yaml")}
    actor = {"spool": str(directory / "run" / SPOOL), "robot_kind": "hardware", "arena_seed": ARENA}
    actor |= {"roll_back_episodes": 3}
    for name, module, values in (
        ("standin", "standin_node", {"standin_seed": 7, "arena_seed": ARENA}),
        ("filter", "safety_filter_node", {"timing": "realtime", "autostart": True}),
        ("actor", "actor_node", actor),
    ):
        processes.start(name, f"safe_rl_ros.ros.{module}", ros_arguments({**files, **values}, namespace=NAME))


@pytest.mark.timeout(300)  # 10 s of driving, and processes that start slowly where others compute
def test_a_bundle_that_is_worse_on_the_robot_gives_way_to_the_first_in_actor_and_filter(tmp_path, ros_domain_id):
    config, run = load_session_config(write_session(tmp_path)), tmp_path / "run"
    still, away = away_from_the_first_goal(config)
    start, worse = (constant_bundle(tmp_path / name, config, a) for name, a in (("start", still), ("worse", away)))
    reader = spool_reader(config, run)
    with Supervisor(ros_domain_id, tmp_path / "log") as processes:
        start_robot(processes, tmp_path, config)
        link = ActorLink(ros_domain_id, NAME)

        def until(condition, deployment):
            def turn():
                link.announce(deployment)
                link.spin(0.1)
                return condition()

            wait(turn, 90.0)

        try:
            until(lambda: reader.waiting(0) >= 3, start)
            until((run / "verdicts.jsonl").is_file, worse)
            judged = reader.waiting(0)
            until(lambda: reader.waiting(0) >= judged + 2, worse)
            state = dict(link.state)
        finally:
            link.close()
        processes.check()
    episodes = [reader.read(number) for number in range(judged + 1)]
    acted = [episode.notes.bundle_sha256 for episode in episodes]
    first, second = start.acting.sha256, worse.acting.sha256
    assert acted == [first] * acted.index(second) + [second] * 3 + [first] * (len(acted) - acted.index(second) - 3)
    assert acted[-1] == first
    [verdict] = (json.loads(line) for line in (run / "verdicts.jsonl").read_text().splitlines())
    assert (verdict["verdict"], verdict["path"], verdict["episodes"]) == ("rolled back", worse.acting.path, 3)
    assert verdict["chance"] <= 0.05
    assert verdict["return_mean"] < verdict["start_return_mean"]
    assert (state["refused_sha256"], state["bundle_sha256"], state["roll_backs"]) == (second, first, "1")
    assert state["filter_bundle_sha256"] == first
    assert "returns are lower than the start's" in state["refused_reason"]


def change(file, **changed):
    """Rewrite keys of a session's YAML."""
    content = dict(read_yaml(file))
    for key, value in changed.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    with file.open("w") as stream:
        YAML(typ="safe", pure=True).dump(content, stream)
    return file


@pytest.mark.slow  # two minutes where others compute: the learner imitates first, and six processes start
@pytest.mark.timeout(400)
def test_what_was_trained_on_twins_goes_on_learning_on_the_stand_in(tmp_path):
    file = change(write_session(tmp_path, epochs=2), name="trained", randomisation="rover", ros={"acting": "learner"})
    config = load_session_config(file)
    trained = prepare_directory(config, tmp_path / "runs", resume=False)
    train(config, trained, open_session)
    goes_on = {"start_from": str(trained), "total_steps": 100, "checkpoint_interval": 1}
    ros = {"acting": "actor", "roll_back_episodes": 2, "roll_back_level": 0.0}
    change(file, name="goes_on", training=goes_on, ros=ros)
    row = run_session(file, tmp_path / "session", robot=ARENA, episodes=4)
    assert len(row["episodes"]) == 4 or row["learner_exit"] is not None
    assert all(episode["length"] <= STEPS for episode in row["episodes"])
    assert row["bundles"] >= 1
    run = tmp_path / "session" / "goes_on"
    reader = spool_reader(load_session_config(file), run)
    notes = reader.read(0).notes
    start = load_bundle(run / "bundles" / "epoch_00000", spec_hash=notes.spec_hash, obs_names=notes.obs_names)
    assert notes.bundle_sha256 == start.hash, "the first that acts is what was trained"
    source = load_bundle(trained / "bundle", spec_hash=notes.spec_hash, obs_names=notes.obs_names)
    obs = reader.read(0).batch.obs
    assert np.abs(start.policy.mean(obs) - source.policy.mean(obs)).mean() < 0.2

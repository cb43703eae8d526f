"""A learner that may be slow or die: the robot does not notice, and no episode is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = pytest.mark.ros

import rclpy  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from ruamel.yaml import YAML  # noqa: E402

from safe_rl_ros.bundle import store  # noqa: E402
from safe_rl_ros.config import read_yaml  # noqa: E402
from safe_rl_ros.data.spool import SpoolReader  # noqa: E402
from safe_rl_ros.envs.parameter_log import read_parameter_log  # noqa: E402
from safe_rl_ros.envs.randomisation import load_randomisation  # noqa: E402
from safe_rl_ros.resources import find_resource  # noqa: E402
from safe_rl_ros.ros.actor_session import SPOOL, ActorSession, open_ros_session  # noqa: E402
from safe_rl_ros.ros.filter_parameters import parameters_of  # noqa: E402
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments  # noqa: E402
from safe_rl_ros.training.checkpoint import latest_checkpoint, load_checkpoint  # noqa: E402
from safe_rl_ros.training.metrics import read_csv  # noqa: E402
from safe_rl_ros.training.run import prepare_directory, train  # noqa: E402
from safe_rl_ros.training.session_config import compose_session, load_session_config  # noqa: E402
from safe_rl_ros.types import BackendError, BundleError, ConfigError  # noqa: E402

RATE_HZ, STEPS, EPOCH = 50.0, 25, 50
NAME = "spooled"


def write_session(directory, epochs=4, **ros):
    """Write a session on a rover at 50 Hz with episodes of half a second; return its YAML."""
    yaml = YAML(typ="safe", pure=True)
    robot = read_yaml(find_resource("rover.yaml", "config/robots")) | {"control_rate_hz": RATE_HZ}
    robot["urdf"] = str(find_resource("rover.urdf", "urdf"))
    task = read_yaml(find_resource("hazard_nav.yaml", "config/tasks")) | {"max_episode_steps": STEPS}
    algorithm = {"name": "csc", "threshold_mode": "fixed", "fixed_threshold": 1.0, "hidden": [8, 8]}
    algorithm |= {"critic_hidden": [8, 8], "critic_updates": 5, "critic_batch_size": 32, "value_epochs": 1}
    session = {
        "name": "run",
        "seed": 3,
        "robot": str(directory / "robot.yaml"),
        "task": str(directory / "task.yaml"),
        "algorithm": algorithm,
        "training": {"total_steps": epochs * EPOCH, "steps_per_epoch": EPOCH, "checkpoint_interval": 1},
        "ros": {"timing": "realtime", "acting": "actor", "nice": 0, **ros},
    }
    for name, content in (("robot", robot), ("task", task), ("session", session)):
        with (directory / f"{name}.yaml").open("w") as file:
            yaml.dump(content, file)
    return directory / "session.yaml"


def spool_of(config, run):
    """Return a reader of a run's spool."""
    session = ActorSession(config, run, domain_id=int(os.environ["ROS_DOMAIN_ID"]), namespace="reading")
    session.close()
    return SpoolReader(run / SPOOL, session.obs_names, session.act_dim, session.spec_hash)


def start_nodes(processes, directory, config):
    """Start twin, filter and actor, as a launch file does before the learner is there."""
    files = {"robot": str(directory / "robot.yaml"), "task": str(directory / "task.yaml")}
    realtime = {**files, "timing": "realtime"}
    actor = {**files, "spool": str(directory / "run" / SPOOL), "seed": 3}
    judge = {**realtime, "autostart": True, "shadow_run_ticks": 2, **parameters_of(config.filter)}
    for name, module, values in (
        ("twin", "twin_node", realtime),
        ("filter", "safety_filter_node", judge),
        ("actor", "actor_node", actor),
    ):
        processes.start(name, f"safe_rl_ros.ros.{module}", ros_arguments(values, namespace=NAME))


def start_learner(processes, directory, *, resume):
    values = {"config": str(directory / "session.yaml"), "runs": str(directory), "resume": resume}
    values |= {"timing": "realtime", "acting": "actor"}
    arguments = ros_arguments(values, namespace=NAME)
    return processes.start("learner", "safe_rl_ros.ros.learner_node", arguments).process


def wait(condition, timeout_s=30.0):
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


@pytest.mark.patient
def test_a_learner_that_is_killed_loses_no_episode_and_the_robot_goes_on(tmp_path, ros_domain_id):
    config = load_session_config(write_session(tmp_path, epochs=3))
    run = tmp_path / "run"
    with Supervisor(ros_domain_id, tmp_path / "log") as processes:
        start_nodes(processes, tmp_path, config)
        learner = start_learner(processes, tmp_path, resume=False)
        wait(lambda: latest_checkpoint(run / "checkpoints") is not None)
        learner.send_signal(signal.SIGKILL)
        learner.wait()
        reader = spool_of(config, run)
        killed_at = reader.waiting(0)
        wait(lambda: reader.waiting(0) >= killed_at + 2)  # nobody learns, and the robot acts on
        del processes.nodes["learner"]
        learner = start_learner(processes, tmp_path, resume=True)
        wait(lambda: learner.poll() is not None)
        assert learner.returncode == 0, processes.nodes["learner"].tail()
        del processes.nodes["learner"]
        processes.check()
    rows = read_csv(run / "metrics.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert json.loads((run / "summary.json").read_text())["finished"]
    checkpoint = load_checkpoint(latest_checkpoint(run / "checkpoints"))
    used = int(checkpoint.session["next_episode"][0])
    assert used >= killed_at
    episodes = [reader.read(number) for number in range(used)]
    assert [episode.notes.number for episode in episodes] == list(range(used))
    everything = np.concatenate([episode.batch.obs for episode in episodes])
    with np.load(run / "transitions.npz") as kept:
        found = {row.tobytes() for row in kept["obs"]}
        assert len(kept["obs"]) == len(everything), "rows lost, or learned from twice"
    assert {row.tobytes() for row in everything} == found
    assert sum(row["actor/older_rows"] for row in rows) + rows[-1]["steps"] == len(everything)
    assert all(row["steps_per_s"] > 0 for row in rows)


@pytest.mark.patient
def test_ros_session_starts_and_ends_the_actor_too_and_randomises_its_twin(tmp_path):
    config = load_session_config(write_session(tmp_path, epochs=2), ["randomisation=rover"])
    directory = prepare_directory(config, tmp_path / "runs", resume=False)
    summary = train(config, directory, open_ros_session)
    assert summary["finished"]
    assert summary["training"]["steps"] >= 2 * EPOCH
    assert summary["filter_latency_us"]["p50"] > 0
    reader = spool_of(config, directory)
    notes = [reader.read(number).notes for number in range(reader.waiting(0))]
    assert len({each.bundle_sha256 for each in notes}) >= 2, "the second epoch's networks acted"
    twins = dict(read_parameter_log(directory / "randomisation.jsonl"))
    assert {each.seed for each in notes} <= set(twins)
    assert all(twins[each.seed] == load_randomisation("rover").draw(each.seed) for each in notes)
    own = [str(directory).encode() in (p / "cmdline").read_bytes() for p in Path("/proc").glob("[0-9]*") if alive(p)]
    assert not any(own)


def alive(entry):
    try:
        return bool((entry / "cmdline").read_bytes())
    except OSError:
        return False


@pytest.fixture
def start(tmp_path, ros_domain_id):
    """Return a function that connects a learner to the run, as the first one does and every one that is resumed."""
    opened = []

    def connect(config=None, directory=tmp_path / "run"):
        for earlier in opened:
            earlier.close()
        config = config or load_session_config(write_session(tmp_path, startup_timeout_s=0.4))
        opened.append(ActorSession(config, directory, domain_id=ros_domain_id, namespace="alone"))
        return opened[-1]

    yield connect
    for session in opened:
        session.close()


@pytest.fixture
def session(start):
    return start()


def deploy(session, epoch=0, seed=0):
    from safe_rl_ros.algorithms import make_algorithm

    algorithm = make_algorithm(session.config.algorithm, session.obs_dim, session.act_dim, seed)
    session.deploy(algorithm, epoch)
    return algorithm


@pytest.fixture
def dated(monkeypatch):
    """Let every manifest have another date."""

    class Clock(datetime):
        seconds = 0

        @classmethod
        def now(cls, tz=None):
            cls.seconds += 1
            return datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=cls.seconds)

    monkeypatch.setattr(store, "datetime", Clock)
    return Clock


def names(session):
    return sorted(path.name for path in (session.directory / "bundles").iterdir())


def test_without_an_actor_it_is_one_clear_error_in_time(session):
    algorithm = deploy(session)
    begin = time.monotonic()
    with pytest.raises(BackendError, match=r"nothing heard of the actor within 0\.4 s \(topic /alone/actor/state\)"):
        session.collect(algorithm, 10, seed=0, epoch=0)
    assert time.monotonic() - begin < 2.0
    assert (session.directory / "bundles" / "epoch_00000" / "manifest.json").is_file()


def test_a_learner_that_was_held_up_does_not_take_its_own_pause_for_the_actors_silence(session):
    pauses = []
    with pytest.raises(BackendError, match="nothing heard of the actor"):
        session.collect(deploy(session), 10, seed=0, epoch=0, on_step=lambda: pauses.append(time.sleep(0.5)))
    assert len(pauses) >= 4, "0.4 s of listening are four looks of 0.1 s, however long it was stopped in between"


def test_a_refusal_ends_the_epoch_and_nothing_is_taken(session, ros_domain_id):
    from diagnostic_msgs.msg import DiagnosticStatus

    from safe_rl_ros.ros import diagnostics, qos

    algorithm = deploy(session)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain_id, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("actor", context=context, namespace="alone", use_global_arguments=False)
    try:
        topic = node.create_publisher(DiagnosticStatus, "actor/state", qos.latched())
        values = {"refused_sha256": session._deployment.acting.sha256, "refused_reason": "uncalibrated"}
        topic.publish(diagnostics.status("actor", "rover", diagnostics.ERROR, "", values))
        with pytest.raises(BundleError, match="the actor refused the bundle, the old one stays: uncalibrated"):
            session.collect(algorithm, 10, seed=0, epoch=0)
    finally:
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    assert session.state()["next_episode"].tolist() == [0]


def test_what_needs_the_robot_is_refused(session, tmp_path):
    with pytest.raises(ConfigError, match="has no robot to evaluate on"):
        session.evaluate(1, seed=0)
    with pytest.raises(ConfigError, match="has no robot to evaluate on"):
        session.deploy_bundle(tmp_path)
    with pytest.raises(ConfigError, match="acting is 'actor' and timing 'lockstep': an actor needs 'realtime'"):
        compose_session("hazard_nav", "csc", ["ros.acting=actor"])
    simulated = compose_session("point_goal", "trpo", ["ros.acting=actor", "ros.timing=realtime"])
    with pytest.raises(ConfigError, match="is simulated and has no robot"):
        open_ros_session(simulated, tmp_path)


def test_networks_that_are_deployed_again_are_the_bundle_that_they_were(start, dated):
    session = start()
    deploy(session)
    first, networks, written = session._deployment, session._networks, dated.seconds
    session = start()
    deploy(session)
    assert dated.seconds > written, "written with another date, and given up for the one that is there"
    assert session._deployment == first
    assert session._networks == networks
    assert names(session) == ["epoch_00000"]


def test_other_networks_of_an_epoch_leave_the_bundle_that_an_actor_was_told_of(start, dated):
    session = start()
    deploy(session)
    first, networks = session._deployment, session._networks
    before = (session.directory / "bundles" / "epoch_00000" / "manifest.json").read_bytes()
    session = start()
    deploy(session, seed=1)
    assert session._deployment.acting.path.endswith("/bundles/epoch_00000_02")
    assert session._deployment.judging == session._deployment.acting
    assert session._networks != networks
    assert (session.directory / "bundles" / "epoch_00000" / "manifest.json").read_bytes() == before
    deploy(session)
    assert session._deployment == first


def test_a_run_that_is_resumed_announces_the_bundle_of_its_checkpoint_again(tmp_path, start, dated):
    config = load_session_config(write_session(tmp_path, startup_timeout_s=0.4, roll_back_episodes=4))
    told = []
    for resume in (False, True):
        directory = prepare_directory(config, tmp_path, resume=resume)
        with pytest.raises(BackendError, match="nothing heard of the actor"):  # and what the learner has is saved
            train(config, directory, lambda *run: told.append(start(*run)) or told[-1])
    assert latest_checkpoint(tmp_path / "run" / "checkpoints").name == "epoch_00000"
    assert told[0]._deployment == told[1]._deployment
    assert names(told[1]) == ["epoch_00000"]


def test_a_refusal_from_before_the_learner_was_resumed_is_asked_about_once(start, dated):
    deploy(start())
    session = start()
    algorithm = deploy(session)
    first, asked = session._deployment, []

    def refuse():
        """Say of whatever is deployed that it is refused."""
        asked.append(Path(session._deployment.acting.path).name)
        assert len(asked) < 5, "asks for ever"
        refused = {"refused_sha256": session._deployment.acting.sha256, "refused_reason": "too slow"}
        session._link.state = refused

    with pytest.raises(BundleError, match="the actor refused the bundle, the old one stays: too slow"):
        session.collect(algorithm, 10, seed=0, epoch=0, on_step=refuse)
    assert asked == ["epoch_00000", "epoch_00000_02"]
    assert session._deployment.acting.sha256 != first.acting.sha256


def test_a_resumed_learner_keeps_what_it_deploys_though_later_epochs_are_there(start):
    session = start()
    for epoch in range(3, 8):
        deploy(session, epoch, seed=epoch)
    assert names(session) == ["epoch_00005", "epoch_00006", "epoch_00007"]
    session = start()
    deploy(session, 2)
    assert names(session) == ["epoch_00002", "epoch_00005", "epoch_00006", "epoch_00007"]


def test_the_files_of_older_sessions_stay_as_they_were(tmp_path):
    written = write_session(tmp_path)
    plain = load_session_config(written, ["ros.acting=learner", "ros.nice=10"])
    assert "acting" not in plain.ros.model_dump()
    assert load_session_config(written).ros.model_dump()["acting"] == "actor"

"""A robot that is moved by its joints: no goal, no odometry, no reward; joints are found by name, commands held."""

from __future__ import annotations

import numpy as np
from import_helpers import BOOL, EPOCH_NS, MESSAGES, MS, Episodes, Stream, number

from safe_rl_ros.bags.bag_import import import_bags
from safe_rl_ros.bags.bag_topics import load_contract
from safe_rl_ros.bags.message_types import FLOAT64_ARRAY, float64_multi_array, type_store

COMMANDS = "/arm_position_controller/commands"
JOINTS = "sensor_msgs/msg/JointState"


def joint_states(stamp_ns, names, position, velocity):
    types = type_store().types
    header = MESSAGES._header(stamp_ns, "")
    return types[JOINTS](header, list(names), np.array(position), np.array(velocity), np.zeros(0))


def test_joint_robot(tmp_path):
    agreed = load_contract("arm")
    spec = agreed.spec
    stream = Stream(types={"/joint_states": JOINTS, COMMANDS: FLOAT64_ARRAY, "/collision": BOOL})
    rng = np.random.default_rng(0)
    states, commands = [], []
    for index in range(31):
        at_ns = EPOCH_NS + index * spec.period_ns
        position, velocity = rng.uniform(0.1, 0.9, 3), rng.uniform(-0.5, 0.5, 3)
        order = rng.permutation(4)
        named = [(*spec.joints, "gripper")[i] for i in order]
        values = np.array([*position, 9.0]), np.array([*velocity, 9.0])
        stream.add("/joint_states", at_ns, joint_states(at_ns, named, values[0][order], values[1][order]))
        states.append((position, velocity))
        if index < 30:
            command = rng.uniform(spec.command_lower, spec.command_upper)
            stream.add(COMMANDS, at_ns + MS, float64_multi_array("", command.tolist()))
            commands.append(command)
    stream.add("/collision", EPOCH_NS + 10 * spec.period_ns + 5 * MS, number(True))
    stream.add("/collision", EPOCH_NS + 12 * spec.period_ns + 5 * MS, number(False))
    episodes = Episodes()
    import_bags([stream.write(tmp_path / "bag")], agreed, episodes)
    (episode,) = episodes
    assert len(episode) == 29
    scaled = (np.array(commands[:29]) - spec.command_lower) / (spec.command_upper - spec.command_lower) * 2.0 - 1.0
    np.testing.assert_allclose(episode.action, scaled, atol=1e-6)
    limits = [spec.description.joints[name] for name in spec.joints]
    for obs, (position, velocity) in zip(episode.obs, states, strict=False):
        middle = [2.0 * (p - j.lower) / (j.upper - j.lower) - 1.0 for p, j in zip(position, limits, strict=True)]
        speed = [v / j.velocity_limit for v, j in zip(velocity, limits, strict=True)]
        np.testing.assert_allclose(obs, [*middle, *speed], atol=1e-6)
    assert episode.cost.nonzero()[0].tolist() == [10, 11, 12]
    assert episode.margin[[9, 10]].tolist() == [1.0, -25.0]
    assert episode.reward.sum() == 0.0
    assert not episode.terminated, "the contract of the arm lets a touch cost, and goes on"

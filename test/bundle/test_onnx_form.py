"""The ONNX form: the same networks and the same answers, by numpy, by the filter's sessions and by any runtime."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from bundle_helpers import ACT, KEYS, NORMALISER, make_critic, make_policy, write

from safe_rl_ros.bundle import export_bundle, load_bundle
from safe_rl_ros.bundle.forms import pack_networks
from safe_rl_ros.bundle.onnx_graph import OPERATORS, critic_model
from safe_rl_ros.bundle.onnx_networks import OnnxCritic, open_session
from safe_rl_ros.inference import SafetyCritic

FORMS = list(itertools.product([1, 3], ["mean", "mean_plus_std", "max"], [None, NORMALISER], [False, True]))
OBSERVATION = np.array([0.9, -1.3, 30.0], dtype=np.float32)  # the last element is clipped by NORMALISER
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (20, ACT)).astype(np.float32)


def networks(members=3, aggregate="mean_plus_std", normaliser=None, std_head=False):
    policy = make_policy(hidden=(8, 6), std_head=std_head, normaliser=normaliser)
    critic = make_critic(hidden=(8, 6), members=members, aggregate=aggregate, std_factor=0.7, normaliser=normaliser)
    return policy, critic


def pair(tmp_path, *form, **changes):
    """Write a bundle and export it; return both as loaded."""
    write(tmp_path / "arrays", *networks(*form, **changes))
    digest = export_bundle(tmp_path / "arrays", tmp_path / "onnx")
    return load_bundle(tmp_path / "arrays", **KEYS), load_bundle(tmp_path / "onnx", expected_hash=digest, **KEYS)


@pytest.mark.parametrize(("members", "aggregate", "normaliser", "std_head"), FORMS)
def test_both_forms_answer_alike(tmp_path, members, aggregate, normaliser, std_head):
    plain, exported = pair(tmp_path, members, aggregate, normaliser, std_head)
    assert exported.manifest.kind == "onnx"
    assert sorted(os.listdir(tmp_path / "onnx")) == ["critic.onnx", "manifest.json", "policy.onnx"]
    assert exported.component_hashes() == plain.component_hashes()
    risks = plain.risk(OBSERVATION, ACTIONS)
    assert risks.std() > 0.01
    np.testing.assert_allclose(exported.risk(OBSERVATION, ACTIONS), risks, atol=1e-6)
    alone = [exported.risk(OBSERVATION, action[None])[0] for action in ACTIONS]
    np.testing.assert_allclose(alone, risks, atol=1e-6)
    for one, other in zip(
        plain.policy.distribution(OBSERVATION), exported.policy.distribution(OBSERVATION), strict=True
    ):
        np.testing.assert_allclose(one, other, atol=1e-6)
    samples = [each.sample(OBSERVATION, 5, np.random.default_rng(0)) for each in (plain, exported)]
    np.testing.assert_allclose(samples[0], samples[1], atol=1e-5)
    several = np.stack([OBSERVATION, -OBSERVATION])
    assert [a.shape for a in exported.policy.distribution(several)] == [(2, ACT), (2, ACT)]


@pytest.mark.parametrize(("members", "aggregate", "normaliser", "std_head"), FORMS)
def test_files_are_complete_for_any_runtime(members, aggregate, normaliser, std_head):
    policy, critic = networks(members, aggregate, normaliser, std_head)
    answers = {}
    inputs = {"obs": OBSERVATION[None], "actions": ACTIONS}
    for name, data in pack_networks(policy, critic, "onnx").items():
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert {node.op_type for node in model.graph.node} <= OPERATORS
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        wanted = {each.name: inputs[each.name] for each in session.get_inputs()}
        outputs = [output.name for output in session.get_outputs()]
        answers |= dict(zip(outputs, session.run(outputs, wanted), strict=True))
        assert name in ("policy.onnx", "critic.onnx")
    assert set(answers) == {"mean", "std", "risk"}
    np.testing.assert_allclose(answers["risk"], critic.risk(OBSERVATION, ACTIONS), atol=1e-6)
    mean, std = policy.distribution(OBSERVATION)
    np.testing.assert_allclose(answers["mean"][0], mean, atol=1e-6)
    np.testing.assert_allclose(answers["std"][0], std, rtol=1e-5)


def test_export_and_back_is_the_same_bundle(tmp_path):
    plain, _ = pair(tmp_path, normaliser=NORMALISER)
    export_bundle(tmp_path / "onnx", tmp_path / "again", kind="safetensors")
    again = load_bundle(tmp_path / "again", **KEYS)
    assert again.manifest.files == plain.manifest.files
    assert again.risk(OBSERVATION, ACTIONS).tolist() == plain.risk(OBSERVATION, ACTIONS).tolist()


def test_without_critic(tmp_path):
    write(tmp_path / "arrays", critic=None)
    export_bundle(tmp_path / "arrays", tmp_path / "onnx")
    assert sorted(os.listdir(tmp_path / "onnx")) == ["manifest.json", "policy.onnx"]
    assert load_bundle(tmp_path / "onnx", **KEYS).critic is None


@pytest.mark.parametrize("aggregate", ["mean", "mean_plus_std", "max"])
@pytest.mark.parametrize("members", [1, 3])
def test_bad_numbers_are_no_risk(aggregate, members):
    base = make_critic(members=members, aggregate=aggregate, hidden=(16, 16), normaliser=NORMALISER)
    critic = OnnxCritic(base.arrays(), base.meta(), base.normaliser)
    actions = ACTIONS.copy()
    actions[3, 1] = np.nan
    assert np.flatnonzero(np.isnan(critic.risk(OBSERVATION, actions))).tolist() == [3]
    assert np.isnan(critic.risk(OBSERVATION, actions[3:4])).all()
    assert np.isnan(critic.risk(np.array([0.0, np.nan, 0.0]), ACTIONS)).all()
    assert np.isnan(critic.risk(np.array([0.0, np.nan, 0.0]), ACTIONS[:1])).all()
    assert critic.select(np.array([0.0, np.nan, 0.0]), ACTIONS, 1.0).index == -1
    assert critic.risk(OBSERVATION, ACTIONS[:0]).shape == (0,)


@pytest.mark.parametrize("aggregate", ["mean", "mean_plus_std", "max"])
@pytest.mark.parametrize("bad", range(3))
def test_one_member_without_an_answer_is_enough_for_no_risk(aggregate, bad):
    base = make_critic(members=3, aggregate=aggregate)
    critic = OnnxCritic(base.arrays(), base.meta())
    logits = np.array([0.5, -0.5, 0.1])
    for judge in (base, critic):
        assert np.isfinite(judge._aggregate(logits[:, None])).all()
    assert critic._aggregate_one(logits.tolist()) == pytest.approx(base._aggregate(logits[:, None])[0], abs=1e-12)
    logits[bad] = np.nan
    assert np.isnan(critic._aggregate(logits[:, None])).all()
    assert np.isnan(critic._aggregate_one(logits.tolist()))


def test_pessimistic_risk_stays_a_probability():
    base = make_critic(members=3, aggregate="mean_plus_std", std_factor=50.0)
    critic = OnnxCritic(base.arrays(), base.meta())
    assert critic.risk(OBSERVATION, ACTIONS).tolist() == [1.0] * len(ACTIONS)
    assert critic.risk(OBSERVATION, ACTIONS[:1]).tolist() == [1.0]
    session = open_session(critic_model(base))
    risk = session.run(["risk"], {"obs": OBSERVATION[None], "actions": ACTIONS})[0]
    assert risk.tolist() == [1.0] * len(ACTIONS)


def test_large_logits_do_not_overflow():
    arrays = {name: array * 1e3 for name, array in make_critic().arrays().items()}
    critics = [kind(arrays, make_critic().meta()) for kind in (SafetyCritic, OnnxCritic)]
    with np.errstate(over="raise", invalid="raise"):
        for actions in (ACTIONS, ACTIONS[:1]):
            one, other = (critic.risk(OBSERVATION, actions) for critic in critics)
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_wrong_shapes_are_named():
    critic = OnnxCritic(make_critic().arrays(), make_critic().meta())
    with pytest.raises(ValueError, match=r"obs has shape \(4,\), expected \(3,\)"):
        critic.risk(np.zeros(4), ACTIONS)
    with pytest.raises(ValueError, match=r"actions has shape \(1, 3\)"):
        critic.risk(OBSERVATION, np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"actions has shape \(20, 3\)"):
        critic.select(OBSERVATION, np.zeros((20, 3)), 0.5)


def test_answers_belong_to_the_caller():
    critic = OnnxCritic(make_critic().arrays(), make_critic().meta())
    first = critic.risk(OBSERVATION, ACTIONS[:1])
    kept = first.copy()
    critic.risk(-OBSERVATION, ACTIONS[1:2])
    assert first.tolist() == kept.tolist()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="no /proc to count threads in")
def test_sessions_start_no_threads(tmp_path):
    pair(tmp_path)
    code = (
        "import os, sys\nfrom safe_rl_ros.bundle import load_as_is, preload\npreload()\n"
        "before = len(os.listdir('/proc/self/task'))\nload_as_is(sys.argv[1])\n"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "onnx")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "0\n", result.stderr

"""The numpy policy and critic by hand, without torch; and refusal of bad arrays."""

import math
import subprocess
import sys

import numpy as np
import pytest

from safe_rl_ros.inference import GaussianPolicy, Normaliser, SafetyCritic, choose

POLICY_META = {"kind": "gaussian_policy", "obs_dim": 2, "act_dim": 1, "hidden": [1], "state_dependent_std": False}
POLICY_ARRAYS = {
    "weight_0": np.array([[1.0], [2.0]], np.float32),
    "bias_0": np.array([0.5], np.float32),
    "weight_1": np.array([[3.0]], np.float32),
    "bias_1": np.array([-1.0], np.float32),
    "log_std": np.array([math.log(0.2)], np.float32),
}
CRITIC_META = {
    "kind": "safety_critic",
    "obs_dim": 1,
    "act_dim": 1,
    "hidden": [1],
    "members": 2,
    "aggregate": "mean",
    "std_factor": 1.0,
}
CRITIC_ARRAYS = {
    "weight_0": np.array([[[1.0], [2.0]], [[0.0], [1.0]]], np.float32),
    "bias_0": np.array([[0.0], [0.5]], np.float32),
    "weight_1": np.array([[[2.0]], [[-1.0]]], np.float32),
    "bias_1": np.array([[0.1], [0.0]], np.float32),
}


def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


def test_policy_by_hand():
    policy = GaussianPolicy(POLICY_ARRAYS, POLICY_META)
    mean, std = policy.distribution([0.1, -0.2])
    assert mean.tolist() == pytest.approx([math.tanh(3.0 * math.tanh(0.1 - 0.4 + 0.5) - 1.0)], abs=1e-6)
    assert std.tolist() == pytest.approx([0.2])
    batch_mean, batch_std = policy.distribution([[0.1, -0.2], [0.0, 0.0]])
    assert batch_mean.shape == batch_std.shape == (2, 1)
    assert batch_mean[0] == pytest.approx(mean, abs=1e-6)


def test_policy_with_a_std_head_is_clamped():
    arrays = {k: v for k, v in POLICY_ARRAYS.items() if k != "log_std"}
    arrays |= {"weight_1": np.array([[3.0, 0.0]], np.float32), "bias_1": np.array([-1.0, 9.0], np.float32)}
    policy = GaussianPolicy(arrays, POLICY_META | {"state_dependent_std": True})
    assert policy.distribution([0.0, 0.0])[1].tolist() == pytest.approx([math.exp(2.0)])


def test_policy_std_is_clamped():
    low = GaussianPolicy(POLICY_ARRAYS | {"log_std": np.array([-9.0])}, POLICY_META)
    assert low.distribution([0.0, 0.0])[1].tolist() == pytest.approx([math.exp(-4.0)])


def test_samples_follow_the_distribution_and_the_generator():
    policy = GaussianPolicy(POLICY_ARRAYS, POLICY_META)
    draws = policy.sample([1.0, 1.0], 20_000, np.random.default_rng(0))
    mean, std = policy.distribution([1.0, 1.0])
    assert draws.shape == (20_000, 1)
    assert draws.mean() == pytest.approx(mean[0], abs=0.01)
    assert draws.std() == pytest.approx(std[0], abs=0.01)
    assert draws.max() > 1.0  # the filter clips, not the policy
    np.testing.assert_array_equal(draws, policy.sample([1.0, 1.0], 20_000, np.random.default_rng(0)))


def test_the_returned_std_is_the_callers_own():
    policy = GaussianPolicy(POLICY_ARRAYS, POLICY_META)
    policy.distribution([0.0, 0.0])[1][:] = 7.0
    assert policy.distribution([0.0, 0.0])[1].tolist() == pytest.approx([0.2])


@pytest.mark.parametrize("aggregate", ["mean", "mean_plus_std", "max"])
def test_critic_by_hand(aggregate):
    critic = SafetyCritic(CRITIC_ARRAYS, CRITIC_META | {"aggregate": aggregate, "std_factor": 0.5})
    for obs, action in ((0.3, -0.4), (1.0, 1.0)):
        one = sigmoid(2.0 * math.tanh(obs + 2.0 * action) + 0.1)
        two = sigmoid(-math.tanh(action + 0.5))
        mean, std = (one + two) / 2.0, abs(one - two) / 2.0
        expected = {"mean": mean, "mean_plus_std": mean + 0.5 * std, "max": max(one, two)}[aggregate]
        assert critic.risk([obs], [[action]])[0] == pytest.approx(expected, abs=1e-6)


def test_pessimistic_risk_stays_a_probability():
    critic = SafetyCritic(CRITIC_ARRAYS, CRITIC_META | {"aggregate": "mean_plus_std", "std_factor": 50.0})
    assert critic.risk([1.0], [[1.0]]).tolist() == [1.0]


def test_many_candidates_equal_one_by_one():
    rng = np.random.default_rng(0)
    critic = SafetyCritic(CRITIC_ARRAYS, CRITIC_META)
    actions = rng.uniform(-1.0, 1.0, (100, 1)).astype(np.float32)
    together = critic.risk([0.2], actions)
    assert together.dtype == np.float64
    np.testing.assert_allclose(together, [critic.risk([0.2], a[None])[0] for a in actions], atol=1e-7)


def test_relu_by_hand():
    policy = GaussianPolicy(POLICY_ARRAYS, POLICY_META | {"activation": "relu"})
    for obs in ([0.1, -0.2], [-1.0, 0.0]):
        hidden = max(0.0, obs[0] + 2.0 * obs[1] + 0.5)
        assert policy.distribution(obs)[0][0] == pytest.approx(math.tanh(3.0 * hidden - 1.0), abs=1e-6)
    critic = SafetyCritic(CRITIC_ARRAYS, CRITIC_META | {"activation": "relu"})
    for obs, action in ((0.3, -0.4), (1.0, 1.0)):
        one = sigmoid(2.0 * max(0.0, obs + 2.0 * action) + 0.1)
        two = sigmoid(-max(0.0, action + 0.5))
        assert critic.risk([obs], [[action]])[0] == pytest.approx((one + two) / 2.0, abs=1e-6)
    assert np.isnan(policy.distribution([np.nan, 0.0])[0]).all()
    assert np.isnan(critic.risk([np.nan], [[0.0]])).all()


def test_tanh_is_not_written_into_a_description():
    assert GaussianPolicy(POLICY_ARRAYS, POLICY_META | {"activation": "tanh"}).meta() == POLICY_META
    assert SafetyCritic(CRITIC_ARRAYS, CRITIC_META | {"activation": "tanh"}).meta() == CRITIC_META
    assert GaussianPolicy(POLICY_ARRAYS, POLICY_META | {"activation": "relu"}).meta()["activation"] == "relu"


@pytest.mark.parametrize("wrong", ["gelu", "ReLU", "", None, 1, ["relu"]])
def test_unknown_activation_is_named(wrong):
    with pytest.raises(ValueError, match=r"meta activation is .*, expected one of \('tanh', 'relu'\)"):
        GaussianPolicy(POLICY_ARRAYS, POLICY_META | {"activation": wrong})
    with pytest.raises(ValueError, match=r"meta activation is .*, expected one of \('tanh', 'relu'\)"):
        SafetyCritic(CRITIC_ARRAYS, CRITIC_META | {"activation": wrong})


def wide_critic(members, activation, normaliser=None):
    """Return a critic of 4 observations and 2 actions whose risks range widely."""
    rng = np.random.default_rng(7)
    arrays = {}
    for i, (fan_in, fan_out) in enumerate([(6, 32), (32, 32), (32, 1)]):
        arrays[f"weight_{i}"] = rng.normal(0, 2.0 * fan_in**-0.5, (members, fan_in, fan_out))
        arrays[f"bias_{i}"] = rng.normal(size=(members, fan_out))
    meta = CRITIC_META | {"obs_dim": 4, "act_dim": 2, "hidden": [32, 32], "members": members, "activation": activation}
    return SafetyCritic(arrays, meta | {"aggregate": "mean_plus_std"}, normaliser)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("normaliser", [None, Normaliser([1.0, 0.0, -1.0, 2.0], [2.0, 1.0, 0.5, 3.0], 1.5)])
def test_many_observations_equal_one_by_one(members, activation, normaliser):
    critic = wide_critic(members, activation, normaliser)
    rng = np.random.default_rng(3)
    obs = rng.normal(size=(7, 4)).astype(np.float32)
    actions = rng.uniform(-1, 1, (7, 5, 2)).astype(np.float32)
    expected = np.stack([critic.risk(o, a) for o, a in zip(obs, actions, strict=True)])
    assert np.ptp(expected) > 0.1
    risks = critic.risk_candidates(obs, actions)
    assert risks.dtype == np.float64
    np.testing.assert_allclose(risks, expected, atol=2e-6)
    np.testing.assert_allclose(critic.risk_rows(obs, actions[:, 2]), expected[:, 2], atol=2e-6)
    obs[3, 1], actions[5, 2, 0] = np.nan, np.nan
    unknown = np.zeros((7, 5), bool)
    unknown[3], unknown[5, 2] = True, True
    assert (np.isnan(critic.risk_candidates(obs, actions)) == unknown).all()
    assert (np.isnan(critic.risk_rows(obs, actions[:, 2])) == unknown[:, 2]).all()


@pytest.mark.parametrize("members", [1, 3])
def test_no_rows_and_no_candidates_give_no_risks(members):
    critic = wide_critic(members, "relu")
    assert critic.risk_candidates(np.zeros((0, 4)), np.zeros((0, 5, 2))).shape == (0, 5)
    assert critic.risk_candidates(np.zeros((3, 4)), np.zeros((3, 0, 2))).shape == (3, 0)
    assert critic.risk_rows(np.zeros((0, 4)), np.zeros((0, 2))).shape == (0,)


@pytest.mark.parametrize(
    ("obs", "actions", "message"),
    [
        ((4,), (1, 2), r"obs has shape \(4,\), expected \(B, 4\)"),
        ((3, 5), (3, 2), r"obs has shape \(3, 5\), expected \(B, 4\)"),
        ((3, 4), (2, 2), r"actions has shape \(2, 1, 2\), expected \(3, K, 2\)"),
        ((3, 4), (3, 3), r"actions has shape \(3, 3\), expected \(B, 2\)"),
        ((3, 4), (2,), r"actions has shape \(2,\), expected \(B, 2\)"),
        ((3, 4), (3, 5, 3), r"actions has shape \(3, 5, 3\), expected \(3, K, 2\)"),
        ((3, 4), (1, 5, 2), r"actions has shape \(1, 5, 2\), expected \(3, K, 2\)"),
    ],
)
def test_bad_shapes_of_many_observations_are_named(obs, actions, message):
    critic = wide_critic(1, "tanh")
    judge = critic.risk_candidates if len(actions) == 3 else critic.risk_rows
    with pytest.raises(ValueError, match=message):
        judge(np.zeros(obs), np.zeros(actions))


def test_nan_stays_nan_and_large_logits_do_not_warn():
    arrays = {k: v[:1] * 1e3 for k, v in CRITIC_ARRAYS.items()}
    critic = SafetyCritic(arrays, CRITIC_META | {"members": 1})
    with np.errstate(over="raise", invalid="raise"):
        risk = critic.risk([0.0], [[1.0], [-1.0]])
    assert risk[0] == 1.0
    assert risk[1] == pytest.approx(0.0, abs=1e-200)
    assert np.isnan(critic.risk([np.nan], [[1.0]])[0])
    assert np.isnan(critic.risk([0.0], [[np.nan]])[0])
    assert np.isnan(SafetyCritic(CRITIC_ARRAYS, CRITIC_META | {"aggregate": "max"}).risk([np.nan], [[1.0]])[0])


def test_round_trip():
    policy = GaussianPolicy(POLICY_ARRAYS, POLICY_META)
    again = GaussianPolicy.from_arrays(policy.arrays(), policy.meta())
    np.testing.assert_array_equal(policy.distribution([0.3, 0.4])[0], again.distribution([0.3, 0.4])[0])
    critic = SafetyCritic(CRITIC_ARRAYS, CRITIC_META)
    twin = SafetyCritic.from_arrays(critic.arrays(), critic.meta())
    np.testing.assert_array_equal(critic.risk([0.3], [[0.4]]), twin.risk([0.3], [[0.4]]))


@pytest.mark.parametrize(
    ("kind", "arrays", "meta", "message"),
    [
        ("policy", {"weight_0": np.zeros((3, 1))}, {}, r"'weight_0' has shape \(3, 1\), expected \(2, 1\)"),
        ("policy", {"bias_1": np.array([np.nan])}, {}, "'bias_1' holds 1 non-finite"),
        ("policy", {"log_std": None}, {}, "'log_std' is missing"),
        ("policy", {"weight_1": None}, {}, "'weight_1' is missing"),
        ("policy", {"weight_9": np.zeros(1)}, {}, r"unknown array\(s\) \['weight_9'\]"),
        ("policy", {}, {"kind": "safety_critic"}, "meta kind is 'safety_critic'"),
        ("policy", {}, {"obs_dim": 0}, "meta obs_dim is 0"),
        ("policy", {}, {"act_dim": True}, "meta act_dim is True"),
        ("policy", {}, {"hidden": []}, "meta hidden is"),
        ("policy", {}, {"extra": 1}, r"unknown key\(s\) \['extra'\]"),
        ("policy", {}, {"state_dependent_std": "no"}, "state_dependent_std is 'no'"),
        ("critic", {"weight_1": np.zeros((1, 1, 1))}, {}, r"'weight_1' has shape \(1, 1, 1\), expected \(2, 1, 1\)"),
        ("critic", {"bias_0": np.full((2, 1), np.inf)}, {}, "'bias_0' holds 2 non-finite"),
        ("critic", {}, {"aggregate": "median"}, "meta aggregate is 'median'"),
        ("critic", {}, {"std_factor": -1.0}, "meta std_factor is -1.0"),
        ("critic", {}, {"members": 0}, "meta members is 0"),
    ],
)
def test_bad_arrays_and_meta_are_named(kind, arrays, meta, message):
    base = POLICY_ARRAYS if kind == "policy" else CRITIC_ARRAYS
    merged = {k: v for k, v in (base | arrays).items() if v is not None}
    build, base_meta = (GaussianPolicy, POLICY_META) if kind == "policy" else (SafetyCritic, CRITIC_META)
    with pytest.raises(ValueError, match=message):
        build(merged, base_meta | meta)


def test_bad_inputs_are_named():
    policy, critic = GaussianPolicy(POLICY_ARRAYS, POLICY_META), SafetyCritic(CRITIC_ARRAYS, CRITIC_META)
    with pytest.raises(ValueError, match=r"obs has shape \(3,\)"):
        policy.distribution(np.zeros(3))
    with pytest.raises(ValueError, match="one observation"):
        policy.sample(np.zeros((4, 2)), 3, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"obs has shape \(2,\)"):
        critic.risk(np.zeros(2), np.zeros((1, 1)))
    with pytest.raises(ValueError, match=r"actions has shape \(1,\)"):
        critic.risk(np.zeros(1), np.zeros(1))


def test_normaliser_by_hand():
    normaliser = Normaliser([1.0, -2.0], [0.5, 4.0], clip=3.0)
    assert normaliser(np.array([2.0, 2.0], np.float32)).tolist() == [2.0, 1.0]
    assert normaliser(np.array([[9.0, -90.0]], np.float32)).tolist() == [[3.0, -3.0]]
    assert Normaliser([1.0], [0.5])(np.array([9.0], np.float32)).tolist() == [16.0]
    assert np.isnan(normaliser(np.array([np.nan, 0.0], np.float32))[0]), "a clip must not hide NaN"


def test_normaliser_is_applied_to_observations_first():
    normaliser = Normaliser([1.0, -2.0], [0.5, 4.0])
    plain, normalised = (
        GaussianPolicy(POLICY_ARRAYS, POLICY_META),
        GaussianPolicy(POLICY_ARRAYS, POLICY_META, normaliser),
    )
    assert normalised.distribution([2.0, 2.0])[0].tolist() == plain.distribution([2.0, 1.0])[0].tolist()
    judge = SafetyCritic(CRITIC_ARRAYS, CRITIC_META, Normaliser([1.0], [0.5]))
    assert judge.risk([2.0], [[0.3]]).tolist() == SafetyCritic(CRITIC_ARRAYS, CRITIC_META).risk([2.0], [[0.3]]).tolist()
    assert judge.risk([1.5], [[0.3]]).tolist() == SafetyCritic(CRITIC_ARRAYS, CRITIC_META).risk([1.0], [[0.3]]).tolist()


@pytest.mark.parametrize(
    ("mean", "std", "clip", "message"),
    [
        ([0.0], [0.0], None, "'std' has the least value 0"),
        ([0.0], [-1.0], None, "'std' has the least value -1"),
        ([0.0], [1.0, 1.0], None, r"'std' has shape \(2,\), expected \(1,\)"),
        ([[0.0]], [[1.0]], None, r"'mean' has shape \(1, 1\), expected \(O,\)"),
        ([], [], None, "expected \\(O,\\)"),
        ([np.nan], [1.0], None, "'mean' holds 1 non-finite"),
        ([0.0], [1.0], 0.0, "clip is 0.0"),
        ([0.0], [1.0], 1e300, "clip is 1e[+]300"),
        ([0.0], [1.0], float("nan"), "clip is nan"),
    ],
)
def test_bad_normaliser_is_named(mean, std, clip, message):
    with pytest.raises(ValueError, match=message):
        Normaliser(mean, std, clip)


def test_normaliser_of_another_length_is_refused():
    with pytest.raises(ValueError, match="length 2, expected 1"):
        SafetyCritic(CRITIC_ARRAYS, CRITIC_META, Normaliser([0.0, 0.0], [1.0, 1.0]))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("risks", "threshold", "order", "expected"),
    [
        ([0.9, 0.2, 0.1], 0.2, None, (1, 0.2, True)),
        ([0.9, 0.2, 0.1], 0.2, [2, 1], (2, 0.1, True)),
        ([0.9, 0.2, 0.1], 0.05, None, (2, 0.1, False)),
        ([0.9, 0.2, 0.1], 0.05, [0, 1], (1, 0.2, False)),
        ([0.3, 0.3], 0.1, [1, 0], (1, 0.3, False)),
        ([NAN, -0.1, INF, 0.4], 0.5, None, (3, 0.4, True)),
        ([NAN, -0.1, INF, 0.4], 0.1, None, (3, 0.4, False)),
        ([NAN, -0.1, INF], 0.5, None, (-1, NAN, False)),
        ([0.1], NAN, None, (0, 0.1, False)),
        ([0.1], INF, None, (0, 0.1, False)),
        ([0.0], -0.0, None, (0, 0.0, True)),
        ([0.0], -0.1, None, (0, 0.0, False)),
        ([0.1], 0.5, [], (-1, NAN, False)),
        ([], 0.5, None, (-1, NAN, False)),
    ],
)
def test_choice_by_hand(risks, threshold, order, expected):
    indices = None if order is None else np.array(order, dtype=np.intp)
    choice = choose(np.array(risks), threshold, indices)
    assert (choice.index, choice.acceptable, choice.evaluated) == (expected[0], expected[2], len(risks))
    assert choice.risk == pytest.approx(expected[1], abs=0, nan_ok=True)


def test_critic_chooses_by_its_risks():
    critic = SafetyCritic(CRITIC_ARRAYS, CRITIC_META)
    actions = np.linspace(-1, 1, 9)[:, None]
    risks = critic.risk([0.2], actions)
    assert critic.select([0.2], actions, float(risks[4])) == choose(risks, float(risks[4]))


def test_no_torch_is_imported():
    code = "import sys, safe_rl_ros.inference, safe_rl_ros.data.dataset; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Each learner of the first offline family learns what it is for, in seconds."""

import numpy as np
import pytest
import torch
from offline_worlds import attached, logged, mean_action, noise_rows, one_state, walk

GREEDY = {
    "iql": {"expectile": 0.9, "inverse_temperature": 10.0},
    "awr": {"temperature": 0.3, "trace_decay": 0.5, "refresh_interval": 100},
    "awac": {"temperature": 0.05},
    "crr": {"weight": "binary"},
    "td3_bc": {"alpha": 10.0},
    "sac_offline": {},
    "cql": {"alpha": 0.5, "action_samples": 4},
}
CQL_VARIANTS = {
    "cql_rho": ("cql", {"alpha": 0.5, "variant": "rho", "action_samples": 4}),
    "cql_eq1": ("cql", {"alpha": 0.02, "variant": "eq1", "action_samples": 4}),
}


@pytest.mark.parametrize("case", [*GREEDY, *CQL_VARIANTS])
def test_it_goes_to_the_goal_that_a_random_walk_has_seen(case):
    name, settings = CQL_VARIANTS.get(case, (case, GREEDY.get(case)))
    slow = {} if name == "awr" else {"target_tau": 0.02}
    algorithm = attached(name, walk(), gamma=0.9, **slow, **settings)
    algorithm.fit(350)
    policy = algorithm.policy()
    left, right = mean_action(policy, -0.8)[0], mean_action(policy, 0.8)[0]
    assert left > 0.3
    assert right < -0.3


def test_cloning_a_random_walk_goes_nowhere():
    """The data alone are no way to the goal of the test above."""
    cloned = attached("bc", walk())
    cloned.fit(200)
    assert abs(mean_action(cloned.policy(), -0.8)[0]) < 0.25


def test_bc_is_the_maximum_likelihood_gaussian():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (1000, 1))
    spread = np.where(x > 0.0, 0.3, 0.05)
    algorithm = attached("bc", logged(x, (0.5 * x + spread * rng.standard_normal((1000, 1))).clip(-1, 1), x))
    algorithm.fit(600)
    for at, std in ((-0.6, 0.05), (0.6, 0.3)):
        mean, found = algorithm.policy().distribution(np.array([at]))
        assert mean[0] == pytest.approx(0.5 * at, abs=0.08)
        assert found[0] == pytest.approx(std, rel=0.5)


def two_kinds(cost=3.0, episodes=20, length=5):
    """Episodes that take action .6 and cost ``cost`` a step, and as many that take -.6 for 1 in all."""
    rows = episodes * length
    dear = (np.arange(rows) // length) % 2 == 0
    zero = np.zeros((rows, 1))
    action = np.where(dear, 0.6, -0.6)[:, None]
    costs = np.where(dear, cost, 1.0 / length)
    return logged(zero, action, zero, cost=costs, truncated=np.arange(rows) % length == length - 1)


def test_bc_safe_imitates_the_episodes_within_the_limit_alone():
    batch = two_kinds()
    safe, plain = attached("bc_safe", batch), attached("bc", batch)
    for algorithm in (safe, plain):
        algorithm.fit(300)
    assert mean_action(safe.policy(), 0.0)[0] == pytest.approx(-0.6, abs=0.05)
    assert mean_action(plain.policy(), 0.0)[0] == pytest.approx(0.0, abs=0.15)
    assert (safe.data.cost[safe._draw(safe.data)] < 1.0).all()


def test_bc_safe_takes_an_episode_exactly_at_the_limit_and_refuses_none_at_all():
    at_limit = attached("bc_safe", two_kinds(cost=2.0), cost_limit=10.0)
    assert len(at_limit._kept) == len(at_limit.data)
    with pytest.raises(ValueError, match=r"cost_limit is 0\.5, but the cheapest of 20 episodes costs 1"):
        attached("bc_safe", two_kinds(), cost_limit=0.5)


def test_cql_is_low_on_unseen_actions_where_sac_is_not():
    # Actions below -.3 were never seen, those seen earn more the lower they are: SAC extrapolates that, CQL does not.
    x = np.random.default_rng(0).uniform(-0.3, 1.0, (512, 1))
    batch = logged(np.zeros_like(x), x, np.zeros_like(x), reward=-x[:, 0], terminated=True)
    seen, unseen = torch.tensor([[0.0, -0.2]]), torch.tensor([[0.0, -0.95]])
    gaps = {}
    for case, settings in {
        "sac": {"name": "sac_offline"},
        "h": {"name": "cql", "variant": "h", "action_samples": 4},
        "rho": {"name": "cql", "variant": "rho", "action_samples": 4},
    }.items():
        algorithm = attached(batch=batch, **settings)
        algorithm.fit(250)
        gaps[case] = (algorithm.critics(unseen) - algorithm.critics(seen)).mean().item()
    assert gaps["sac"] > 0.3
    assert gaps["h"] < -0.3
    assert gaps["rho"] < gaps["sac"] - 0.3


def test_eq1_under_estimates_what_sac_gets_right():
    batch = one_state(reward=1.0, terminated=True)
    sac, eq1 = attached("sac_offline", batch), attached("cql", batch, variant="eq1", alpha=0.5, action_samples=4)
    states, rng = np.zeros((4, 1), np.float32), np.random.default_rng(0)
    for algorithm in (sac, eq1):
        algorithm.fit(300)
    assert sac.expected_return(states, rng).mean() == pytest.approx(1.0, abs=0.1)
    # Minimum of alpha E_pi[Q] + 1/2 E_D[(Q - 1)^2] if pi were the data's: 1 - alpha.
    assert eq1.expected_return(states, rng).max() < 0.6


def test_more_critics_are_more_pessimistic():
    batch = noise_rows(100)
    states = batch.obs[:50]
    few, many = (attached("sac_offline", batch, critics=n) for n in (2, 12))
    for algorithm in (few, many):
        algorithm.fit(300)
    found = [a.expected_return(states, np.random.default_rng(0)).mean() for a in (few, many)]
    assert found[1] < found[0] - 0.1


def test_iql_values_lie_at_the_expectile_of_what_was_seen():
    # One state, rewards uniform on [-1, 1] by action: the .9-expectile is .5, as .9 (1 - e)^2 = .1 (1 + e)^2.
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (2000, 1))
    batch = logged(np.zeros_like(x), x, np.zeros_like(x), reward=x[:, 0], terminated=True)
    algorithm = attached("iql", batch, expectile=0.9, reward_scale=1.0, target_tau=0.05, critic_learning_rate=1e-2)
    algorithm.fit(600)
    assert algorithm.value(torch.zeros(1, 1)).item() == pytest.approx(0.5, abs=0.08)

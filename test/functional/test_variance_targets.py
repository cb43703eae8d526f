"""Variance and off-policy targets: by hand, at tabular fixed points, and against Monte-Carlo returns of a chain."""

import numpy as np
import pytest

from safe_rl_ros.functional.returns import gae, retrace, variance_gae, variance_retrace

GAMMA = 0.8
# Three states and a true end (3). Two actions per state; P[s, a, s'], the cost depends on where an action leads.
P = np.array(
    [
        [[0.2, 0.6, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1]],
        [[0.5, 0.2, 0.2, 0.1], [0.1, 0.3, 0.3, 0.3]],
        [[0.3, 0.3, 0.2, 0.2], [0.6, 0.1, 0.2, 0.1]],
    ]
)
COST = np.random.default_rng(5).uniform(0.0, 2.0, (3, 2, 4))
POLICY = np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]])
BEHAVIOUR = np.array([[0.4, 0.6], [0.6, 0.4], [0.5, 0.5]])


def solve_mean(policy):
    """Return V (3,) of the discounted cost, from its linear equations."""
    flow = np.einsum("sa,sat->st", policy, P)
    return np.linalg.solve(np.eye(3) - GAMMA * flow[:, :3], np.einsum("sa,sat,sat->s", policy, P, COST))


def solve_variance(policy):
    """Return Var (3,): E[(c + gamma V')^2] - V^2 + gamma^2 E[Var'] (Sobel 1982), from its linear equations."""
    value = solve_mean(policy)
    following = np.append(value, 0.0)
    squares = np.einsum("sa,sat,sat->s", policy, P, np.square(COST + GAMMA * following))
    flow = np.einsum("sa,sat->st", policy, P)
    return np.linalg.solve(np.eye(3) - GAMMA**2 * flow[:, :3], squares - np.square(value))


def roll(policy, runs, length, rng):
    """Return columns of ``runs`` runs of the chain one after the other: true ends restart it, time limits cut it."""
    states, actions, following = (np.zeros((runs, length), int) for _ in range(3))
    s = rng.integers(3, size=runs)
    for t in range(length):
        a = (rng.random(runs) > policy[s, 0]).astype(int)
        n = (np.cumsum(P[s, a], axis=1) < rng.random((runs, 1))).sum(axis=1)
        states[:, t], actions[:, t], following[:, t] = s, a, n
        s = np.where(n == 3, rng.integers(3, size=runs), n)
    states, actions, following = states.ravel(), actions.ravel(), following.ravel()
    ended = following == 3
    cut = np.arange(runs * length) % length == length - 1
    return states, actions, following, COST[states, actions, following], ended, cut & ~ended


def lookup(table, states):
    return np.append(table, 0.0)[states]


def test_variance_of_the_chain_is_that_of_its_returns():
    states, _, _, cost, ended, _ = roll(POLICY, 100_000, 40, np.random.default_rng(0))
    going_on = np.cumprod(np.hstack((np.ones((100_000, 1)), ~ended.reshape(-1, 40)[:, :-1])), axis=1)
    returns = (going_on * GAMMA ** np.arange(40) * cost.reshape(-1, 40)).sum(axis=1)
    first = states.reshape(-1, 40)[:, 0]
    for s in range(3):
        assert returns[first == s].mean() == pytest.approx(solve_mean(POLICY)[s], rel=0.01)
        assert returns[first == s].var() == pytest.approx(solve_variance(POLICY)[s], rel=0.03)


@pytest.mark.parametrize("lam", [0.0, 0.9])
@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize("central", [False, True])
def test_variance_targets_have_their_fixed_point_at_the_variance(central, off_policy, lam):
    states, _, following, cost, ended, cut = roll(POLICY, 4000, 50, np.random.default_rng(1))
    mean, variance = solve_mean(POLICY), solve_variance(POLICY)
    columns = [cost, *(lookup(table, x) for table in (mean, variance) for x in (states, following))]
    if off_policy:
        columns.append(np.ones(len(cost)))
    function = variance_retrace if off_policy else variance_gae
    advantage, target = function(*columns, ended, cut, gamma=GAMMA, lam=lam, central=central)
    for s in range(3):
        assert advantage[states == s].mean() == pytest.approx(0.0, abs=0.04 * variance[s])
        # Cut at 0, the printed form's target is too large on average; the central one is not cut at all.
        assert bool(target[states == s].mean() < 1.05 * variance[s]) is central


@pytest.mark.parametrize("off_policy", [False, True])
def test_iterated_variance_targets_find_the_variance(off_policy):
    states, _, following, cost, ended, cut = roll(POLICY, 600, 50, np.random.default_rng(2))
    mean, variance = np.zeros(3), np.zeros(3)
    for _ in range(15):
        ends = {"terminated": ended, "truncated": cut, "gamma": GAMMA, "lam": 0.5}
        means, spreads = ([lookup(table, x) for x in (states, following)] for table in (mean, variance))
        ones = np.ones(len(cost))
        if off_policy:
            target = retrace(cost, *means, ones, **ends)[1]
            advantage = variance_retrace(cost, *means, *spreads, ones, **ends)[0]
        else:
            target = gae(cost, *means, **ends)[1]
            advantage = variance_gae(cost, *means, *spreads, **ends)[0]
        mean = np.array([target[states == s].mean() for s in range(3)])
        variance = variance + np.array([advantage[states == s].mean() for s in range(3)])
    np.testing.assert_allclose(mean, solve_mean(POLICY), rtol=0.02)
    np.testing.assert_allclose(variance, solve_variance(POLICY), rtol=0.08)


def test_off_policy_targets_evaluate_the_other_policy():
    """With whole traces, whole ratios and critics that know nothing, E[T | s, a] is the other policy's Q(s, a)."""
    states, actions, following, cost, ended, cut = roll(BEHAVIOUR, 4000, 50, np.random.default_rng(3))
    ratios = (POLICY / BEHAVIOUR)[states, actions]
    guess = np.array([0.7, -0.4, 2.0])
    _, target = retrace(cost, lookup(guess, states), lookup(guess, following), ratios, ended, cut, gamma=GAMMA, lam=1.0)
    value = np.append(solve_mean(POLICY), 0.0)
    q = np.einsum("sat,sat->sa", P, COST + GAMMA * value)
    behaviour_q = np.einsum("sat,sat->sa", P, COST + GAMMA * np.append(solve_mean(BEHAVIOUR), 0.0))
    early = np.arange(len(cost)) % 50 < 25  # far from the cut, where the guess is bootstrapped
    for s in range(3):
        for a in range(2):
            estimate = target[early & (states == s) & (actions == a)].mean()
            assert estimate == pytest.approx(q[s, a], rel=0.02)
    assert np.abs(behaviour_q - q).max() > 0.1  # the two policies do differ


def test_off_policy_variance_targets_evaluate_the_other_policy():
    states, actions, following, cost, ended, cut = roll(BEHAVIOUR, 4000, 50, np.random.default_rng(4))
    ratios = (POLICY / BEHAVIOUR)[states, actions]
    mean = solve_mean(POLICY)
    guess = np.array([0.7, 0.1, 2.0])
    columns = [cost, *(lookup(table, x) for table in (mean, guess) for x in (states, following))]
    advantage, _ = variance_retrace(*columns, ratios, ended, cut, gamma=GAMMA, lam=1.0)
    following_moment = np.append(mean, 0.0), np.append(solve_variance(POLICY), 0.0)
    second = np.einsum("sat,sat->sa", P, np.square(COST + GAMMA * following_moment[0]) + GAMMA**2 * following_moment[1])
    early = np.arange(len(cost)) % 50 < 25
    for s in range(3):
        for a in range(2):
            estimate = (advantage + guess[states])[early & (states == s) & (actions == a)].mean() + mean[s] ** 2
            assert estimate == pytest.approx(second[s, a], rel=0.04)


HAND = {"values": [0.5, 1.0, 1.5], "next_values": [1.0, 1.5, 9.0]}


def test_retrace_by_hand():
    # T_2 = 3 (true end); D_2 = .5 * .5 * (3 - 1.5) = .375; T_1 = 2 + .5 * 1.5 + .5 * .375 = 2.9375
    # D_1 = .5 * .8 * (2.9375 - 1) = .775; T_0 = 1 + .5 * 1 + .5 * .775 = 1.8875; the first ratio plays no part
    ends = {"terminated": [False, False, True], "truncated": [False] * 3, "gamma": 0.5, "lam": 0.5}
    advantage, target = retrace([1.0, 2.0, 3.0], **HAND, ratios=[0.1, 0.8, 0.5], **ends)
    np.testing.assert_allclose(target, [1.8875, 2.9375, 3.0])
    np.testing.assert_allclose(advantage, [1.3875, 1.9375, 1.5])


def test_ratios_of_one_give_the_on_policy_advantages():
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=30) for _ in range(3)]
    ends = rng.random((2, 30)) < 0.2
    one = retrace(*columns, np.ones(30), *ends, gamma=0.9, lam=0.8)
    np.testing.assert_allclose(one, gae(*columns, *ends, gamma=0.9, lam=0.8))


def test_variance_by_hand_and_the_two_trace_decays():
    # dS_1 = (2 + .5*1.5)^2 - 1 + .25*.8 - .4 = 6.3625; dS_0 = (1 + .5*1)^2 - .25 + .25*.4 - .2 = 1.9
    spread = {"variances": [0.2, 0.4], "next_variances": [0.4, 0.8]}
    ends = {"terminated": [False, False], "truncated": [False, True], "gamma": 0.5, "lam": 0.5}
    costs, values = [1.0, 2.0], {"values": [0.5, 1.0], "next_values": [1.0, 1.5]}
    advantage, target = variance_gae(costs, **values, **spread, **ends)
    np.testing.assert_allclose(advantage, [1.9 + 0.0625 * 6.3625, 6.3625])
    np.testing.assert_allclose(target, [2.1 + 0.0625 * 6.3625, 6.7625])
    advantage, target = variance_retrace(costs, **values, **spread, ratios=[0.3, 0.8], **ends)
    np.testing.assert_allclose(advantage, [1.9 + 0.25 * 0.5 * 0.8 * 6.3625, 6.3625])
    np.testing.assert_allclose(target, [2.1 + 0.25 * 0.5 * 0.8 * 6.3625, 6.7625])


def test_central_form_by_hand():
    # (2 + .5 * 1.5 - 1)^2 + .25 * .8 - .4 = 2.8625; (1 + .5 * 1 - .5)^2 + .25 * .4 - .2 = .9
    columns = ([1.0, 2.0], [0.5, 1.0], [1.0, 1.5], [0.2, 0.4], [0.4, 0.8])
    ends = {"terminated": [False, False], "truncated": [False, True], "gamma": 0.5, "lam": 0.5, "central": True}
    advantage, target = variance_gae(*columns, **ends)
    np.testing.assert_allclose(advantage, [0.9 + 0.0625 * 2.8625, 2.8625])
    np.testing.assert_allclose(target, [1.1 + 0.0625 * 2.8625, 3.2625])


@pytest.mark.parametrize("off_policy", [False, True])
def test_negative_targets_are_cut_for_the_regression_only(off_policy):
    tail = ([1.0],) if off_policy else ()
    function = variance_retrace if off_policy else variance_gae
    advantage, target = function([0.0], [3.0], [0.0], [1.0], [0.0], *tail, [True], [False], gamma=0.5, lam=0.5)
    assert advantage.tolist() == [-10.0]  # -9 - 1: not cut
    assert target.tolist() == [0.0]


@pytest.mark.parametrize("function", [gae, retrace, variance_gae, variance_retrace])
def test_time_limits_are_not_true_ends(function):
    spread = ([0.0], [7.0]) if function in (variance_gae, variance_retrace) else ()
    ratios = ([1.0],) if function in (retrace, variance_retrace) else ()
    cut = function([1.0], [0.0], [10.0], *spread, *ratios, [False], [True], gamma=0.5, lam=0.9)[1]
    ended = function([1.0], [0.0], [10.0], *spread, *ratios, [True], [False], gamma=0.5, lam=0.9)[1]
    assert ended.tolist() == [1.0]
    assert cut.tolist() == ([36.0 + 0.25 * 7.0] if spread else [6.0])


def test_bad_columns_are_named():
    with pytest.raises(ValueError, match=r"ratios has shape \(2,\), expected \(T,\) like rewards \(1,\)"):
        retrace([1.0], [0.0], [0.0], [1.0, 1.0], [False], [True], gamma=0.9, lam=0.9)
    with pytest.raises(ValueError, match="next_variances holds NaN"):
        variance_gae([1.0], [0.0], [0.0], [0.0], [np.nan], [False], [True], gamma=0.9, lam=0.9)

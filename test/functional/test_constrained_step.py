"""The constrained step in its five cases against scipy's solver, and a line search that always ends."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from safe_rl_ros.functional.constrained_step import (
    ConstrainedStep,
    StepCase,
    constrained_line_search,
    constrained_step,
    dual_solution,
)

MAX_KL = 0.01


def problem(seed, size=4):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    fisher = root @ root.T + 0.3 * np.eye(size)
    return rng.normal(size=size), rng.normal(size=size), fisher


def reach(b, fisher):
    """Return sqrt(2 delta s): how far F can be moved inside the trust region; B < 0 exactly where |c| is larger."""
    return math.sqrt(2.0 * MAX_KL * b @ np.linalg.solve(fisher, b))


def step_of(g, b, fisher, c):
    matrix = torch.from_numpy(fisher)
    return constrained_step(
        torch.from_numpy(g),
        torch.from_numpy(b),
        lambda v: torch.linalg.solve(matrix, v),
        excess=c,
        max_kl=MAX_KL,
    )


def solved_by_scipy(g, b, fisher, c):
    """Return the best x of max g'x, c - b'x <= 0 (if there is a b), x'Hx / 2 <= delta, by quadratic programming."""
    scale = math.sqrt(MAX_KL)  # variables near 1
    constraints = [{"type": "ineq", "fun": lambda x: 1.0 - 0.5 * x @ fisher @ x, "jac": lambda x: -fisher @ x}]
    starts = [np.zeros_like(g)]
    if b is not None:
        constraints.append({"type": "ineq", "fun": lambda x: b @ x - c / scale, "jac": lambda x: b})
        starts.append(c * np.linalg.solve(fisher, b) / (b @ np.linalg.solve(fisher, b)) / scale)
    found = [
        minimize(
            lambda x: -g @ x, x0, jac=lambda x: -g, constraints=constraints, method="SLSQP", options={"ftol": 1e-14}
        )
        for x0 in starts
    ]
    # Not all that stopped say so; every one that keeps the constraints bounds the best from below.
    good = [r for r in found if all(c["fun"](r.x) >= -1e-8 for c in constraints)]
    assert good
    return min(good, key=lambda r: r.fun).x * scale


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    ("share", "case"),
    [
        (-0.5, StepCase.FEASIBLE),
        (-0.05, StepCase.FEASIBLE),
        (0.05, StepCase.FEASIBLE_RECOVERY),
        (0.7, StepCase.FEASIBLE_RECOVERY),
        (-1.5, StepCase.OUT_OF_REACH),
    ],
)
def test_step_is_the_solution_of_the_problem(share, case, seed):
    g, b, fisher = problem(seed)
    c = share * reach(b, fisher)
    found = step_of(g, b, fisher, c)
    x = found.step.numpy()
    best = solved_by_scipy(g, b, fisher, c)
    assert found.case is case
    assert 0.5 * x @ fisher @ x <= MAX_KL * (1.0 + 1e-9)
    assert c - b @ x <= 1e-9
    assert g @ x == pytest.approx(g @ best, rel=1e-5)
    np.testing.assert_allclose(x, best, atol=2e-3 * np.linalg.norm(best))
    if found.nu > 0.0:
        assert b @ x == pytest.approx(c, abs=1e-9)  # an active constraint is met with equality


def test_both_outcomes_of_a_crossing_constraint_occur():
    # nu = 0 where the unconstrained step stays on the right side, nu > 0 where it does not.
    active = [step_of(*problem(s), -0.05 * reach(*problem(s)[1:])).nu > 0.0 for s in range(20)]
    assert any(active)
    assert not all(active)


@pytest.mark.parametrize("seed", range(4))
def test_infeasible_step_lowers_the_cost_as_far_as_the_trust_region_goes(seed):
    g, b, fisher = problem(seed)
    c = 1.5 * reach(b, fisher)
    found = step_of(g, b, fisher, c)
    lowest = solved_by_scipy(b, None, fisher, c)  # max b'x in the trust region alone
    assert found.case is StepCase.INFEASIBLE
    np.testing.assert_allclose(found.step.numpy(), lowest, atol=2e-3 * np.linalg.norm(lowest))
    assert b @ found.step.numpy() == pytest.approx(reach(b, fisher))  # F falls: b is minus its gradient
    assert found.nu == pytest.approx(math.sqrt(2.0 * MAX_KL / (b @ np.linalg.solve(fisher, b))))


@pytest.mark.parametrize("seed", range(4))
def test_without_a_cost_gradient_the_step_is_the_natural_gradient(seed):
    g, b, fisher = problem(seed)
    found = step_of(g, 1e-6 * b, fisher, -1.0)
    best = solved_by_scipy(g, None, fisher, -1.0)
    assert found.case is StepCase.NO_COST_GRADIENT
    assert found.nu == 0.0
    np.testing.assert_allclose(found.step.numpy(), best, atol=2e-3 * np.linalg.norm(best))


def test_a_constraint_that_is_just_met_counts_as_met():
    g, b, fisher = problem(0)
    found = step_of(g, -g, fisher, 0.0)  # every gain costs: only staying on the boundary is left
    assert step_of(g, b, fisher, 0.0).case is StepCase.FEASIBLE
    assert found is None or abs(g @ found.step.numpy()) < 1e-6


def test_parallel_gradients_do_not_make_roots_of_negative_numbers():
    g, _, fisher = problem(1)
    for sign in (1.0, -1.0):
        for c in (-0.01, 0.01):
            found = step_of(g, sign * g, fisher, c)
            assert found is not None
            assert bool(torch.isfinite(found.step).all())
            assert c - sign * g @ found.step.numpy() <= 1e-8


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_step_from_numbers_that_are_not_finite(bad):
    g, b, fisher = problem(0)
    broken = g.copy()
    broken[1] = bad
    assert step_of(broken, b, fisher, -0.1) is None
    assert step_of(g, broken, fisher, -0.1) is None
    assert step_of(g, b, fisher, bad) is None
    nan_solve = constrained_step(torch.ones(2), torch.ones(2), lambda v: v * bad, excess=-0.1, max_kl=0.01)
    assert nan_solve is None


def test_no_step_where_nothing_can_be_gained():
    g, b, fisher = problem(0)
    zero = np.zeros_like(g)
    assert step_of(zero, b, fisher, -1e3) is None  # met, and no objective
    assert step_of(g, zero, fisher, 1.0) is None  # violated, and no way to lower the cost
    assert dual_solution(1.0, 0.0, 1.0, -0.1, 0.0) is None


def test_without_an_objective_a_violated_constraint_is_just_met():
    g, b, fisher = problem(0)
    c = 0.3 * reach(b, fisher)
    found = step_of(np.zeros_like(g), b, fisher, c)
    assert found.case is StepCase.FEASIBLE_RECOVERY
    assert b @ found.step.numpy() == pytest.approx(c)


def search(answers, found=None, excess=-1.0, tries=6):
    theta = torch.tensor([0.1, 0.2])
    found = found or ConstrainedStep(torch.ones(2), StepCase.FEASIBLE, 1.0, 0.0)
    seen = []

    def evaluate():
        seen.append(theta.clone())
        return answers(len(seen))

    result = constrained_line_search([theta], found, evaluate, max_kl=0.01, excess=excess, max_tries=tries)
    return result, theta, seen


def test_line_search_shortens_until_everything_fits():
    answers = [(0.02, 1.0, 0.0), (0.005, -1.0, 0.0), (0.005, 1.0, 1.5), (0.004, 0.3, 0.9), (0.0, 9.0, 0.0)]
    result, theta, seen = search(lambda n: answers[n - 1])
    assert (result.accepted, result.tries, len(seen)) == (True, 4, 4)
    assert result.scale == pytest.approx(0.8**3)
    assert (result.kl, result.improvement, result.cost_change) == (0.004, 0.3, 0.9)
    assert theta.tolist() == pytest.approx([0.1 + 0.512, 0.2 + 0.512])


def test_a_step_that_recovers_may_lose_reward_but_must_not_cost_more():
    for case in StepCase:
        step = ConstrainedStep(torch.ones(2), case, 1.0, 0.0)
        recovers = case in (StepCase.INFEASIBLE, StepCase.FEASIBLE_RECOVERY)
        excess = 1.0 if recovers else -1.0
        assert search(lambda _: (0.0, -1.0, -0.5), step, excess)[0].accepted is recovers
        assert search(lambda _: (0.0, 1.0, 0.5), step, excess)[0].accepted is not recovers


@pytest.mark.parametrize(
    "answer",
    [
        (math.nan, 1.0, 0.0),
        (0.0, math.nan, 0.0),
        (0.0, 1.0, math.nan),
        (0.0, math.inf, 0.0),
        (0.02, 1.0, 0.0),
        (0.0, -1e-9, 0.0),
        (0.0, 1.0, 1.1),
    ],
    ids=str,
)
def test_line_search_ends_and_restores_bit_for_bit(answer):
    result, theta, seen = search(lambda _: answer, tries=7)
    assert not result.accepted
    assert (result.scale, result.tries, len(seen)) == (0.0, 7, 7)
    assert theta.equal(torch.tensor([0.1, 0.2]))


def test_line_search_restores_after_a_nan_step_and_an_exception():
    step = ConstrainedStep(torch.full((2,), math.nan), StepCase.FEASIBLE, 1.0, 0.0)
    _, theta, _ = search(lambda _: (math.nan, 1.0, 0.0), step)
    assert theta.equal(torch.tensor([0.1, 0.2]))

    parameter = torch.tensor([0.1, 0.2])

    def broken():
        raise RuntimeError("evaluation failed")

    with pytest.raises(RuntimeError, match="evaluation failed"):
        constrained_line_search([parameter], step, broken, max_kl=0.01, excess=-1.0)
    assert parameter.equal(torch.tensor([0.1, 0.2]))

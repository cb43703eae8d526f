from typing import Any

import numpy as np
import pytest
from policy_fakes import TwoWays
from vector_fakes import FunctionCritic, LinePolicy

from safe_rl_ros.safety.action_filter import ActionFilter, CommandLimits, Observation, Proposal
from safe_rl_ros.safety.filter_config import FilterConfig
from safe_rl_ros.training.behaviour import FIRST_CANDIDATES, Behaviour, check_filter
from safe_rl_ros.types import ConfigError, Reason

LIMITS = CommandLimits.from_axes(
    lower=-np.ones(2), upper=np.ones(2), rate=np.full(2, 1e6), stop=np.zeros(2), period_s=0.1
)


def steps_of_tenths(obs: Any, actions: Any) -> Any:
    """Many ties, so that the order of preference shows; NaN here and there, which is no risk."""
    wave = np.abs(np.sin(7.0 * obs[..., 0] + 5.0 * actions[..., 0] - 3.0 * actions[..., 1])).astype(np.float64)
    return np.where(wave > 0.97, np.nan, np.round(wave, 1))


def behaviour(risk: Any = steps_of_tenths, threshold: float = 0.4, recovery: Any = None, **config: Any) -> Behaviour:
    return Behaviour(LinePolicy(), FunctionCritic(risk), threshold, FilterConfig(**config), recovery)  # type: ignore[arg-type]


class FilterModel:
    """The same policy and critic as a model of the robots' filter, which draws the candidates that are drawn here."""

    hash, obs_dim, act_dim = "model", 2, 2

    def __init__(self, threshold: float, rng: np.random.Generator) -> None:
        self.threshold, self._rng = threshold, rng

    def risk(self, obs: Any, actions: Any) -> Any:
        return steps_of_tenths(obs[None], actions)

    def sample(self, obs: Any, n: int, rng: np.random.Generator) -> Any:
        mean, std = LinePolicy().distribution(obs)
        return mean + std * self._rng.standard_normal((n, 2), dtype=np.float32)

    def mean(self, obs: Any) -> Any:
        return LinePolicy().distribution(obs)[0]


@pytest.mark.parametrize("fallback", ["min_risk", "backup_policy"])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.4, 0.8, -0.1, float("nan")])
def test_one_environment_gets_the_robot_filter_s_decision(fallback: Any, threshold: float) -> None:
    config = FilterConfig(max_samples=12, fallback_mode=fallback)
    found = set()
    for trial in range(150):
        obs = np.random.default_rng([7, trial]).standard_normal((1, 2)).astype(np.float32)
        acting = Behaviour(LinePolicy(), FunctionCritic(steps_of_tenths), threshold, config)  # type: ignore[arg-type]
        twin = np.random.default_rng(trial)
        mean, std = LinePolicy().distribution(obs)
        proposal = np.clip(mean + std * twin.standard_normal((1, 2)).astype(np.float32), -1.0, 1.0)
        robot = ActionFilter(LIMITS, config, lambda values: values, lambda values: values)
        robot.set_model(FilterModel(threshold, twin))
        robot.activate()
        decision = robot.decide(100, Proposal(proposal[0].astype(np.float64), 100, 100), Observation(obs[0], 100, 100))
        found.add(decision.reason)
        if decision.reason is Reason.STOP_BAD_RISK:  # the mean, which is the backup, has the risk NaN
            with pytest.raises(ValueError, match="policy's mean"):
                acting.act(obs, np.random.default_rng(trial))
            continue
        acted = acting.act(obs, np.random.default_rng(trial))
        np.testing.assert_array_equal(acted.executed[0], decision.executed)
        assert bool(acted.intervened[0]) is decision.intervened
    usual = {Reason.LEAST_RISK} if fallback == "min_risk" else {Reason.BACKUP}
    assert found & ({Reason.ACCEPTED, Reason.RESAMPLED} if threshold > 0.1 else usual)


def test_rows_are_decided_one_by_one() -> None:
    obs = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    acted = behaviour(max_samples=30).act(obs, np.random.default_rng(1))
    rng = np.random.default_rng(1)
    mean, std = LinePolicy().distribution(obs)
    proposed = mean + std * rng.standard_normal((200, 2)).astype(np.float32)
    np.testing.assert_array_equal(acted.proposed, proposed)
    clipped = np.clip(proposed, -1, 1)
    risk = steps_of_tenths(obs, clipped)
    rows = np.flatnonzero(~(risk <= 0.4))
    np.testing.assert_array_equal(np.flatnonzero(acted.intervened), rows)
    noise = rng.standard_normal((len(rows), 30, 2), np.float32)
    candidates = np.clip(mean[rows, None] + std[rows, None] * noise, -1, 1)
    expected = clipped.copy()
    for row, options in zip(rows, candidates, strict=True):
        risks = steps_of_tenths(obs[row], options)
        safe = [k for k in range(30) if risks[k] <= 0.4]
        order = sorted((k for k in range(30) if not np.isnan(risks[k])), key=lambda k: risks[k])
        if safe:
            expected[row] = options[safe[0]]
        elif np.isnan(risk[row]) or risks[order[0]] < risk[row]:
            expected[row] = options[order[0]]
    np.testing.assert_array_equal(acted.executed, expected)
    assert 20 < len(rows) < 180


def test_later_candidates_are_judged_only_where_the_first_ones_are_all_too_risky() -> None:
    critic = FunctionCritic(lambda obs, actions: np.where(obs[..., 0] > 0, 0.9, 0.1) * np.ones(actions.shape[:-1]))
    acting = Behaviour(LinePolicy(), critic, 0.0, FilterConfig(max_samples=50))  # type: ignore[arg-type]
    acting.act(np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32), np.random.default_rng(0))
    assert critic.judged == 2 + 2 * 50
    acting = Behaviour(LinePolicy(), critic, 0.5, FilterConfig(max_samples=50))  # type: ignore[arg-type]
    critic.judged = 0
    acting.act(np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32), np.random.default_rng(0))
    assert critic.judged == 2 + 50
    fickle = FunctionCritic(lambda obs, actions: (actions[..., 0] > 0.9).astype(np.float64))
    acting = Behaviour(LinePolicy(), fickle, 0.5, FilterConfig(max_samples=50))  # type: ignore[arg-type]
    acted = acting.act(np.full((1, 2), 3.0, np.float32), np.random.default_rng(3))
    assert acted.intervened.all()
    assert fickle.judged == 1 + FIRST_CANDIDATES


@pytest.mark.parametrize("config", [{"critic": "shadow"}, {"mode": "shadow"}])
def test_shadow_counts_and_replaces_nothing(config: Any) -> None:
    obs = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    shadow = behaviour(**config).act(obs, np.random.default_rng(1))
    enforced = behaviour().act(obs, np.random.default_rng(1))
    np.testing.assert_array_equal(shadow.executed, np.clip(shadow.proposed, -1, 1))
    assert not shadow.intervened.any()
    np.testing.assert_array_equal(shadow.shadow, enforced.intervened)
    assert enforced.intervened.any()
    assert not enforced.shadow.any()


def test_off_asks_no_critic() -> None:
    critic = FunctionCritic(steps_of_tenths)
    acting = Behaviour(LinePolicy(), critic, -1.0, FilterConfig(critic="off"))  # type: ignore[arg-type]
    acted = acting.act(np.zeros((3, 2), np.float32), np.random.default_rng(0))
    assert critic.judged == 0
    assert not acted.intervened.any()


def test_the_recovery_policy_s_mean_acts_where_a_proposal_is_vetoed() -> None:
    class Recovery:
        def mean(self, obs: Any) -> Any:
            return np.stack([obs[:, 1], 2.0 + 0 * obs[:, 1]], axis=1)

    obs = np.random.default_rng(0).uniform(-1, 1, (60, 2)).astype(np.float32)
    acted = behaviour(recovery=Recovery()).act(obs, np.random.default_rng(1))
    vetoed = acted.intervened
    assert 5 < vetoed.sum() < 55
    np.testing.assert_array_equal(acted.executed[vetoed], np.stack([obs[vetoed, 1], np.ones(vetoed.sum())], axis=1))
    np.testing.assert_array_equal(acted.executed[~vetoed], np.clip(acted.proposed[~vetoed], -1, 1))


def test_the_configured_threshold_replaces_the_algorithm_s() -> None:
    obs = np.random.default_rng(0).standard_normal((80, 2)).astype(np.float32)
    critic = FunctionCritic(lambda o, a: np.full(a.shape[:-1], 0.5))
    for own, configured, vetoed in ((0.1, 0.6, 0), (0.6, 0.1, 80), (0.1, None, 80), (0.5, None, 0)):
        acting = Behaviour(LinePolicy(), critic, own, FilterConfig(threshold=configured))  # type: ignore[arg-type]
        assert acting.act(obs, np.random.default_rng(1)).intervened.sum() == vetoed


def test_deterministic_proposes_the_mean() -> None:
    obs = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
    acted = behaviour(critic="off").act(obs, np.random.default_rng(1), deterministic=True)
    np.testing.assert_array_equal(acted.executed, LinePolicy().distribution(obs)[0])


def test_a_critic_without_an_answer_is_an_error_and_not_a_choice() -> None:
    with pytest.raises(ValueError, match="no usable risk"):
        behaviour(lambda o, a: np.full(a.shape[:-1], np.nan)).act(
            np.zeros((2, 2), np.float32), np.random.default_rng(0)
        )


@pytest.mark.parametrize(
    "config",
    [
        {"candidates": "around"},
        {"fallback_mode": "brake"},
        {"threshold": 0.2, "threshold_off": 0.1},
        {"min_hold_cycles": 3},
        {"risk_abort": 0.5},
        {"max_consecutive_vetoes": 4},
    ],
)
def test_what_only_a_robot_s_filter_has_is_refused_by_name(config: Any) -> None:
    name = next(name for name in reversed(config))
    with pytest.raises(ConfigError, match=f"filter.{name} = "):
        check_filter(FilterConfig(**config))
    check_filter(FilterConfig(**config, critic="off"))


def test_no_critic_to_enforce_is_refused() -> None:
    with pytest.raises(ConfigError, match="no safety critic"):
        Behaviour(LinePolicy(), None, 1.0, FilterConfig())  # type: ignore[arg-type]


def test_samples_of_a_policy_that_is_no_gaussian_take_the_place_of_what_is_vetoed() -> None:
    """It leans to one side on every axis; the critic lets only actions pass that lean to the right on the first."""
    policy = TwoWays([[0.2, -0.1], [0.1, 0.3]])

    def left_is_risky(obs: Any, actions: Any) -> Any:
        return (actions[..., 0] < policy.mean(obs.reshape(-1, 2)).reshape(*obs.shape[:-1], 2)[..., 0]).astype(float)

    obs = np.random.default_rng(0).uniform(-1, 1, (60, 2)).astype(np.float32)
    acting = Behaviour(policy, FunctionCritic(left_is_risky), 0.5, FilterConfig(max_samples=20))  # type: ignore[arg-type]
    acted = acting.act(obs, np.random.default_rng(1))
    lean = acted.executed - policy.mean(obs)
    np.testing.assert_allclose(np.abs(lean), 0.5, atol=1e-6)
    assert (lean[:, 0] > 0).all()
    assert 15 < acted.intervened.sum() < 45
    np.testing.assert_array_equal(acted.intervened, (acted.proposed - policy.mean(obs))[:, 0] < 0)
    assert (acted.std == 0.0).all()
    backup = FilterConfig(max_samples=2, fallback_mode="backup_policy")
    none_pass = Behaviour(policy, FunctionCritic(lambda obs, actions: np.ones(actions.shape[:-1])), 0.5, backup)  # type: ignore[arg-type]
    np.testing.assert_array_equal(none_pass.act(obs, np.random.default_rng(1)).executed, policy.mean(obs))
    still = acting.act(obs, np.random.default_rng(1), deterministic=True)
    np.testing.assert_array_equal(still.proposed, policy.mean(obs))

"""What TRPO, CSC and Q-ensembles share: actor, reward value network V_R and the natural-gradient policy step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from safe_rl_ros.algorithms.base import Learner
from safe_rl_ros.algorithms.config import OnPolicyConfig
from safe_rl_ros.functional.returns import gae, standardise
from safe_rl_ros.functional.trust_region import (
    fisher_product,
    flat_gradient,
    gaussian_kl,
    gaussian_log_prob,
    kl_line_search,
    natural_gradient_step,
)
from safe_rl_ros.inference import GaussianPolicy
from safe_rl_ros.networks import GaussianActor, ValueNet
from safe_rl_ros.types import TransitionBatch


@dataclass(frozen=True)
class PolicyRows:
    """Rows of the policy step as tensors.

    ``obs`` (B, O); ``action`` (B, C) the action whose likelihood is moved, not clipped; ``weight``
    (B,) 1, or 0 for rows left out; ``advantage`` (B,) standardised A_R.
    """

    obs: Tensor
    action: Tensor
    weight: Tensor
    advantage: Tensor


class OnPolicyAlgorithm(Learner):
    """Actor, reward value network and a natural-gradient step on a given advantage; subclasses implement _learn."""

    def __init__(self, config: OnPolicyConfig, obs_dim: int, act_dim: int, seed: int) -> None:
        """Build the networks from ``seed``; global random state is neither read nor changed."""
        super().__init__(obs_dim, act_dim, seed, config.device)
        self._base = config
        self.actor = GaussianActor(
            obs_dim,
            act_dim,
            config.hidden,
            self._generator,
            init_log_std=config.init_log_std,
            state_dependent_std=config.state_dependent_std,
        )
        self.value = ValueNet(obs_dim, config.hidden, self._generator)
        self._own("actor", self.actor)
        self._own("value", self.value, config.value_learning_rate)

    def policy(self) -> GaussianPolicy:
        """Return a numpy snapshot of the current policy."""
        return self.actor.export()

    def _policy_rows(self, rollout: TransitionBatch) -> tuple[PolicyRows, Tensor]:
        """Return the rows of the policy step and the targets (B,) of V_R.

        The action of a row is the policy's own sample, the unclipped proposal. That holds too where the
        filter replaced it, if ``intervened_rows`` is "proposed": policy and filter's environment then
        make an ordinary decision process, and g is unbiased for it. "executed" takes the action that
        ran, as if it were drawn from the actor; it came from the actor conditioned on passing the
        critic, so its likelihood is understated and the policy's spread shrinks. "mask" leaves the row out.
        """
        config = self._base
        obs = self._tensor(rollout.obs)
        with torch.no_grad():
            values = self.value(obs).cpu().numpy()
            next_values = self.value(self._tensor(rollout.next_obs)).cpu().numpy()
        advantage, target = gae(
            rollout.reward,
            values,
            next_values,
            rollout.terminated,
            rollout.truncated,
            gamma=config.gamma,
            lam=config.gae_lambda,
        )
        replaced = rollout.intervened & (config.intervened_rows == "executed")
        action = np.where(replaced[:, None], rollout.action_executed, rollout.action_proposed)
        weight = 1.0 - (rollout.intervened & (config.intervened_rows == "mask"))
        rows = PolicyRows(obs, self._tensor(action), self._tensor(weight), self._tensor(standardise(advantage)))
        return rows, self._tensor(target)

    def _policy_actions(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Return the actor's actions (n, B, C) for ``obs`` (B, O) and normal ``noise`` (n, B, C), clipped to [-1, 1].

        Clipped because only actions in [-1, 1] can be executed, so only those have a risk.
        """
        with torch.no_grad():
            mean, log_std = self.actor(obs)
            return torch.as_tensor((mean + log_std.exp() * noise).clamp(-1.0, 1.0))

    def _policy_step(self, rows: PolicyRows, advantage: Tensor) -> dict[str, float]:
        """Take one step on E[pi / pi_old A] with mean KL(pi_old || pi) <= delta; ``advantage`` (B,).

        Its gradient at pi_old is g = E[grad log pi A] (Eq. 8, arXiv:2010.14497).
        """
        config = self._base
        parameters = list(self.actor.parameters())
        total = float(rows.weight.sum())
        kept = {"kl": 0.0, "line_search_accepted": 0.0, "line_search_tries": 0.0, "policy_improvement": 0.0}
        if total == 0.0:
            return kept
        mean, log_std = self.actor(rows.obs)
        mean_old, log_std_old = mean.detach(), log_std.detach()
        log_prob_old = gaussian_log_prob(rows.action, mean_old, log_std_old)
        weight = rows.weight / total

        def objective(mean: Tensor, log_std: Tensor) -> Tensor:
            log_ratio = gaussian_log_prob(rows.action, mean, log_std) - log_prob_old
            surrogate = (weight * log_ratio.clamp(-20.0, 20.0).exp() * advantage).sum()
            return surrogate + config.entropy_coef * log_std.mean()

        start = objective(mean, log_std)
        gradient = flat_gradient(start, parameters, retain=True)
        kl = gaussian_kl(mean_old, log_std_old, mean, log_std).mean()
        product = fisher_product(kl, parameters, config.fisher_damping)
        step = natural_gradient_step(gradient, product, max_kl=config.max_kl, iterations=config.cg_iterations)
        if step is None:
            return kept

        def evaluate() -> tuple[float, float]:
            with torch.no_grad():
                mean, log_std = self.actor(rows.obs)
                kl = gaussian_kl(mean_old, log_std_old, mean, log_std).mean()
                return float(kl), float(objective(mean, log_std) - start)

        result = kl_line_search(
            parameters,
            step,
            evaluate,
            max_kl=config.max_kl,
            backtrack=config.line_search_backtrack,
            max_tries=config.line_search_tries,
            min_improvement=0.0 if config.require_improvement else -float("inf"),
        )
        return {
            "kl": result.kl,
            "line_search_accepted": float(result.accepted),
            "line_search_tries": float(result.tries),
            "policy_improvement": result.improvement,
        }

    def _fit_value(self, obs: Tensor, target: Tensor) -> dict[str, float]:
        """Regress V_R on ``target`` (B,) by 1/2 squared error in shuffled minibatches."""
        optimizer = self._optimizers["value"]
        total, steps = 0.0, 0
        for _ in range(self._base.value_epochs):
            order = torch.randperm(len(obs), generator=self._generator).to(self.device)
            for part in torch.split(order, self._base.value_batch_size):
                loss = 0.5 * (self.value(obs[part]) - target[part]).square().mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                total, steps = total + loss.detach(), steps + 1
        return {"value_loss": float(total) / steps}

    def _policy_metrics(self, obs: Tensor) -> dict[str, float]:
        with torch.no_grad():
            _, log_std = self.actor(obs)
        return {"policy_std": float(log_std.exp().mean())}

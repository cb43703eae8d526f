"""A conditional variational auto-encoder of the data's actions, the behaviour model of BCQ, BEAR and CPQ.

Eq. 28 and 29 of arXiv:1812.02900: encoder (s, a) -> Gaussian over z of length 2 C, decoder (s, z) -> action in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from safe_rl_ros.algorithms.off_policy import Metrics, descend
from safe_rl_ros.functional.soft_actor_critic import inward_clamp
from safe_rl_ros.functional.variational import vae_loss
from safe_rl_ros.networks import BatchedMLP

LATENT_LOG_STD_MIN, LATENT_LOG_STD_MAX = -4.0, 4.0


class ActionVAE(nn.Module):
    """Encoder and decoder of actions given observations; ReLU layers."""

    def __init__(self, obs_dim: int, act_dim: int, hidden: Sequence[int], generator: torch.Generator) -> None:
        """Build the networks; ``generator`` draws their initial weights."""
        super().__init__()
        self.hidden, self.latent_dim = tuple(hidden), 2 * act_dim
        self.encoder = BatchedMLP(
            [obs_dim + act_dim, *hidden, 2 * self.latent_dim], generator, final_gain=0.1, activation="relu"
        )
        self.decoder = BatchedMLP(
            [obs_dim + self.latent_dim, *hidden, act_dim], generator, final_gain=0.1, activation="relu"
        )

    def encode(self, joint: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log std (B, Z) of z for observations and actions, joined (B, O + C)."""
        mean, log_std = self.encoder(joint).split(self.latent_dim, dim=1)
        return mean, inward_clamp(log_std, LATENT_LOG_STD_MIN, LATENT_LOG_STD_MAX)

    def decode(self, obs: Tensor, latent: Tensor) -> Tensor:
        """Return actions in [-1, 1], (B, C) for ``latent`` (B, Z) or (n, B, C) for (n, B, Z), at ``obs`` (B, O)."""
        rows = obs if latent.dim() == 2 else obs.expand(latent.shape[0], -1, -1)
        x = torch.cat((rows, latent), dim=-1)
        return torch.as_tensor(self.decoder(x.flatten(0, -2)).tanh().view(*latent.shape[:-1], -1))


def fit_vae(
    vae: ActionVAE, optimizer: torch.optim.Optimizer, obs: Tensor, action: Tensor, noise: Tensor, kl_weight: float
) -> Metrics:
    """Take one gradient step on actions (B, C) at ``obs`` (B, O); ``noise`` (B, Z) is standard normal."""
    mean, log_std = vae.encode(torch.cat((obs, action), dim=1))
    reconstruction = vae.decode(obs, mean + log_std.exp() * noise)
    loss = vae_loss(reconstruction, action, mean, log_std, kl_weight)
    descend(optimizer, loss)
    return {"vae_loss": loss.detach()}

"""What FISOR has beside the paper: critics that rest while the actor draws rows by their weights."""

import numpy as np
import pytest
import torch
from offline_worlds import attached, noise_rows

from safe_rl_ros.types import ConfigError

SETTINGS = {"critic_steps": 3, "actor_start": 3, "actor_batch_size": 4000}
NETWORKS = ("value", "feasibility_value", "critics", "critics_target", "feasibility_critics", "actor", "actor_target")


def changed(learner, steps):
    """Return which networks ``steps`` gradient steps change, and the metrics."""
    before = {name: [p.detach().clone() for p in getattr(learner, name).parameters()] for name in NETWORKS}
    metrics = learner.fit(steps)
    after = {name: getattr(learner, name).parameters() for name in NETWORKS}
    return {
        n for n in NETWORKS if any(not torch.equal(a, b) for a, b in zip(before[n], after[n], strict=True))
    }, metrics


def test_the_critics_rest_after_their_steps():
    learner = attached("fisor", noise_rows(), **SETTINGS)
    assert changed(learner, 3)[0] == set(NETWORKS) - {"actor", "actor_target"}
    found, metrics = changed(learner, 2)
    assert found == {"actor", "actor_target"}
    assert "critic_loss" not in metrics
    assert metrics["weight"] == 1.0


def test_rows_are_drawn_in_proportion_to_their_weights():
    learner = attached("fisor", noise_rows(), **SETTINGS)
    learner.fit(3)
    data = learner.data
    weights = learner._weights(data.obs, data.action).double()
    assert (weights == 0.0).any()
    assert weights.max() > 2.0 * weights[weights > 0.0].median()
    drawn = torch.cat([learner._draw_by_weight(data) for _ in range(50)])
    share = np.bincount(drawn.numpy(), minlength=len(data)) / len(drawn)
    np.testing.assert_allclose(share, weights / weights.sum(), atol=3e-3)


def test_rows_are_drawn_where_no_row_has_a_weight(monkeypatch):
    learner = attached("fisor", noise_rows(), **SETTINGS)
    monkeypatch.setattr(learner, "_weights", lambda obs, action: torch.zeros(len(obs)))
    assert len(learner._draw_by_weight(learner.data).unique()) > 100


@pytest.mark.parametrize("steps", [2, 4])
def test_a_stored_state_goes_on_bit_for_bit(steps):
    learner = attached("fisor", noise_rows(), **SETTINGS)
    learner.fit(steps)
    state = learner.state_dict()
    expected = learner.fit(3)
    other = attached("fisor", noise_rows(), seed=1, **SETTINGS)
    other.fit(5)  # has weights of other critics
    other.load_state_dict(state)
    assert other.fit(3) == expected
    for name, value in learner.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_kept_margin_needs_margins():
    with pytest.raises(ConfigError, match=r"kept_margin is 0\.1, but violation_from is 'cost'"):
        attached("fisor", noise_rows(), kept_margin=0.1, violation_from="cost")

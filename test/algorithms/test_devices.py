"""Where learners compute: the choice of a device, all tensors on it, and the same numbers on each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from other_device import OTHER, OtherTensor, other_device
from test_learners import ACT_DIM, OBS_DIM, SMALL, run_epoch

from safe_rl_ros.algorithms import ALGORITHMS, base, make_algorithm
from safe_rl_ros.algorithms.state import find_device
from safe_rl_ros.config import build
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.types import ConfigError

NO_GPU = "torch.cuda.is_available() is False here: there is no GPU to compare with"
PARITY = {"rtol": 2e-3, "atol": 2e-5}
"""How far parameters may be apart after two updates: float32 sums in another order, then Adam's division by roots."""


OTHER_WAYS = [
    ("trpo", {"state_dependent_std": True, "intervened_rows": "mask", "entropy_coef": 0.01}),
    ("csc", {"bellman_loss": "cross_entropy", "shaped_rows": "executed", "policy_action_samples": 2}),
    ("csc", {"intervened_rows": "executed", "state_dependent_std": True, "multiplier_init": 0.5}),
    ("q_ensembles", {"pessimism": "max", "bellman_loss": "cross_entropy", "policy_action_samples": 2}),
]
"""Options of the on-policy algorithms that compute what their defaults do not."""


def on(name, device, seed=0, **options):
    config = build(ALGORITHMS[name][0], {"name": name, "device": device} | SMALL[name] | options, "test")
    return make_algorithm(config, OBS_DIM, ACT_DIM, seed)


def two_epochs(algorithm, make_rollout, start=None):
    """Return metrics of two updates on fixed rollouts, from ``start`` where one is given."""
    if start is not None:
        algorithm.load_state_dict(start)
    rows = make_rollout(on("trc", "cpu").policy(), np.random.default_rng(5))
    buffer = ReplayBuffer(500, OBS_DIM, ACT_DIM)
    buffer.add(rows)
    fixed = lambda policy, rng: make_rollout(on("trc", "cpu", 3).policy(), rng)  # noqa: E731
    return [run_epoch(algorithm, buffer, fixed, epoch) for epoch in range(2)]


def test_every_algorithm_has_a_device_and_it_is_the_cpu_unless_told_otherwise():
    assert {config.model_fields["device"].default for config, _ in ALGORITHMS.values()} == {"cpu"}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_without_a_gpu_cuda_is_one_clear_error_and_auto_is_the_cpu(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device is cuda, but torch finds none here: expected cpu or auto") as caught:
        on(name, "cuda")
    assert "\n" not in str(caught.value)
    assert on(name, "auto").device == on(name, "cpu").device == torch.device("cpu")
    with pytest.raises(ConfigError, match="device = 'gpu'"):
        build(ALGORITHMS[name][0], {"name": name, "device": "gpu"}, "test")


def test_with_a_gpu_auto_is_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [find_device(name).type for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]


def test_the_other_device_keeps_its_tensors_apart():
    """What the tests below rely on: mixing devices raises, and nothing moves by itself."""
    here = torch.ones(3)
    with other_device() as device:
        there = torch.full((3,), 2.0, requires_grad=True).to(device).detach().requires_grad_()
        assert (there.device, type(there)) == (OTHER, OtherTensor)
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            there + here
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            torch.stack((there.sum(), here.sum()))
        with pytest.raises((RuntimeError, TypeError)):
            there.detach().numpy()
        (there * 3.0 * here.sum()).sum().backward()
        assert there.grad.device == OTHER
        assert there.grad.cpu().tolist() == [9.0] * 3
        assert float(there.detach().sum()) == 6.0
    assert type(there.cpu()) is torch.Tensor


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_tensor_follows_the_device(name, make_rollout, monkeypatch):
    """Two updates on a device that refuses tensors of the CPU give what the CPU gives, bit for bit.

    No GPU is needed: see :mod:`other_device`. What a GPU rounds differently is left to the test below.
    """
    plain = on(name, "cpu")
    expected = two_epochs(plain, make_rollout)
    monkeypatch.setattr(base, "find_device", lambda _: OTHER if _ == "cuda" else torch.device("cpu"))
    with other_device():
        moved = on(name, "cuda")
        assert moved.device == OTHER
        assert {p.device for network in moved._networks.values() for p in network.parameters()} == {OTHER}
        for optimizer in moved._optimizers.values():
            assert {m.device for moments in optimizer.state.values() for m in moments.values()} == {OTHER}
        assert two_epochs(moved, make_rollout) == expected
        state = moved.state_dict()
        policy, critic, recovery = moved.policy(), moved.critic(), moved.recovery()
    assert {(type(tensor), tensor.device.type) for tensor in state.values()} == {(torch.Tensor, "cpu")}
    assert all(state[key].equal(value) for key, value in plain.state_dict().items())
    obs = np.ones((2, OBS_DIM), np.float32)
    np.testing.assert_array_equal(policy.distribution(obs), plain.policy().distribution(obs))
    if recovery is not None:
        np.testing.assert_array_equal(recovery.distribution(obs), plain.recovery().distribution(obs))
    if critic is not None:
        action = np.zeros((2, ACT_DIM))
        np.testing.assert_array_equal(critic.risk_rows(obs, action), plain.critic().risk_rows(obs, action))


@pytest.mark.parametrize(("name", "options"), OTHER_WAYS)
def test_options_and_logged_data_follow_the_device_too(name, options, make_rollout, monkeypatch):
    """As above, with other options and after a round on logged data."""
    monkeypatch.setattr(base, "find_device", lambda _: OTHER if _ == "cuda" else torch.device("cpu"))
    logged = ReplayBuffer(500, OBS_DIM, ACT_DIM)
    logged.add(make_rollout(on("trc", "cpu").policy(), np.random.default_rng(8)))
    plain = on(name, "cpu", **options)
    expected = [plain.pretrain(logged), *two_epochs(plain, make_rollout)]
    with other_device():
        moved = on(name, "cuda", **options)
        assert [moved.pretrain(logged), *two_epochs(moved, make_rollout)] == expected
        state = moved.state_dict()
    assert all(state[key].equal(value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_state_of_one_device_goes_on_on_another(name, make_rollout, monkeypatch):
    monkeypatch.setattr(base, "find_device", lambda _: OTHER if _ == "cuda" else torch.device("cpu"))
    first = on(name, "cpu", seed=4)
    two_epochs(first, make_rollout)
    start = first.state_dict()
    expected = two_epochs(first, make_rollout, start)
    with other_device():
        moved = on(name, "cuda", seed=9)
        assert two_epochs(moved, make_rollout, start) == expected
        state = moved.state_dict()
    assert all(state[key].equal(value) for key, value in first.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_cuda_and_cpu_learn_the_same_within_rounding(name, make_rollout):
    start = on(name, "cpu", seed=4).state_dict()
    learners = {device: on(name, device, seed=9) for device in ("cpu", "cuda")}
    for learner in learners.values():
        two_epochs(learner, make_rollout, start)
    assert next(learners["cuda"]._networks["actor"].parameters()).is_cuda
    cpu, cuda = (learner.state_dict() for learner in learners.values())
    for key in (key for key in cpu if key.startswith(("network.", "scalar."))):
        np.testing.assert_allclose(cuda[key].numpy(), cpu[key].numpy(), err_msg=key, **PARITY)
    assert cpu["generator"].equal(cuda["generator"])
    assert any(not cpu[key].equal(start[key]) for key in cpu if key.startswith("network."))

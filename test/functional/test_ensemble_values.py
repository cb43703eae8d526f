"""Values of an ensemble by blocks of rows: the layers' own products and gradients, whatever the number of rows."""

import pytest
import torch

from safe_rl_ros.functional import ensemble_values as module
from safe_rl_ros.functional.ensemble_values import ensemble_values
from safe_rl_ros.networks import BatchedMLP


@pytest.mark.parametrize("rows", [1, 7, 16, 33])
@pytest.mark.parametrize("hidden", [(5,), (5, 4, 3)])
@pytest.mark.parametrize("reused", [None, [(2, 7, 5)], [(2, 7, 5), (2, 7, 4), (2, 7, 3)]])
def test_values_and_gradients_are_those_of_whole_layers(rows, hidden, reused, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    net = BatchedMLP([3, *hidden, 1], generator, members=2, final_gain=1.0, activation="relu").double()
    with torch.no_grad():
        for bias in net.biases:
            bias.normal_(generator=generator)
    inputs, slope = (torch.randn(shape, generator=generator).double() for shape in ((rows, 3), (2, rows)))
    parameters = [*net.weights, *net.biases]
    memory = [] if reused is None else [torch.ones(shape, dtype=torch.float64) for shape in reused]
    found = ensemble_values(inputs, net.weights, net.biases, memory)
    expected = net(inputs.expand(2, -1, -1))[..., 0]
    assert len(memory) == len(hidden)
    torch.testing.assert_close(found, expected)
    both = [torch.autograd.grad((values * slope).sum(), parameters) for values in (found, expected)]
    for ours, theirs in zip(*both, strict=True):
        assert theirs.abs().max() > 0.0
        torch.testing.assert_close(ours, theirs)


def test_memory_is_used_again_and_a_gradient_that_came_too_late_is_refused():
    weights = [torch.ones(1, 2, 3, requires_grad=True), torch.ones(1, 3, 1)]
    biases, memory = [torch.zeros(1, 1, 3), torch.zeros(1, 1, 1)], []
    first = ensemble_values(torch.ones(4, 2), weights, biases, memory)
    (place,) = (each.data_ptr() for each in memory)
    second = ensemble_values(2.0 * torch.ones(4, 2), weights, biases, memory)
    assert [each.data_ptr() for each in memory] == [place]
    assert (first.tolist(), second.tolist()) == ([[6.0] * 4], [[12.0] * 4])
    torch.autograd.grad(second.sum(), weights[:1])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(first.sum(), weights[:1])


def test_a_gradient_that_it_does_not_have_is_refused():
    weights, biases = [torch.ones(1, 2, 1)], [torch.zeros(1, 1, 1)]
    with pytest.raises(ValueError, match="inputs require a gradient"):
        ensemble_values(torch.ones(3, 2, requires_grad=True), weights, biases)
    with torch.no_grad():
        assert ensemble_values(torch.ones(3, 2, requires_grad=True), weights, biases).tolist() == [[2.0, 2.0, 2.0]]
    with pytest.raises(ValueError, match="has 2 outputs, expected 1"):
        ensemble_values(torch.ones(3, 2), [torch.ones(1, 2, 2)], [torch.zeros(1, 1, 2)])

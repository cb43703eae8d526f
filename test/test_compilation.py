"""torch's compiler in a learner: the same results within rounding, and none is no obstacle."""

import logging
import shutil

import pytest
import torch

from safe_rl_ros.algorithms.trc import TRC, TRCConfig
from safe_rl_ros.compilation import Compiled

CPU = torch.device("cpu")


def fitted(compile_critics: bool) -> dict[str, torch.Tensor]:
    """Return a learner's state after fitting its critics on 40 rows in minibatches of 16, 16 and 8."""
    learner = TRC(TRCConfig(hidden=(8, 8), critic_batch_size=16, compile_critics=compile_critics), 3, 2, seed=4)
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(40, 3, generator=generator)
    targets = [torch.rand(40, generator=generator, dtype=torch.float64).numpy() for _ in range(3)]
    learner._fit_critics(obs, targets)
    assert not compile_critics or learner._losses.active
    return {name: value for name, value in learner.state_dict().items() if value.is_floating_point()}


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs g++")
def test_compiled_critics_learn_what_uncompiled_ones_do() -> None:
    ours, plain = fitted(True), fitted(False)
    assert ours.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_without_a_compiler_one_warning_and_the_function_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.fx_graph_cache", False)
    tripled = Compiled(lambda x: (x * 3.0).cos() + x.numel(), CPU)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            torch.testing.assert_close(tripled(torch.zeros(5)), torch.full((5,), 6.0))
    assert not tripled.active
    assert [record.getMessage()[:20] for record in caplog.records] == ["torch.compile failed"]

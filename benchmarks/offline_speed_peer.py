"""d3rlpy's side of ``offline_speed``, run by the interpreter of its own virtual environment, without anything of ours.

The argument is a JSON object: ``data`` (an .npz of rows), ``batch_size`` and ``cases``, name -> widths of the hidden
layers. Each line on standard input is ``{"case", "steps"}``; each is answered by one line with processor seconds:
``update``, gradient steps on minibatches drawn before, and ``whole``, the same number of steps with drawing them.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import metadata
from typing import Any

import d3rlpy
import numpy as np
import torch

SEED = 0
PREPARED = 20
"""Minibatches drawn once, over which the steps that are timed without drawing go around."""


def make(case: str, hidden: list[int], batch_size: int) -> Any:
    """Return an algorithm with d3rlpy's defaults but for the sizes, and for CQL a fixed weight of the penalty."""
    encoder = d3rlpy.models.encoders.VectorEncoderFactory(hidden_units=hidden)
    settings = {"batch_size": batch_size, "actor_encoder_factory": encoder, "critic_encoder_factory": encoder}
    if case == "iql":
        return d3rlpy.algos.IQLConfig(**settings, value_encoder_factory=encoder).create(device="cpu:0")
    # No dual form of alpha: ours has none.
    return d3rlpy.algos.CQLConfig(**settings, alpha_learning_rate=0.0).create(device="cpu:0")


class Case:
    """One algorithm and the data that it learns from."""

    def __init__(self, name: str, hidden: list[int], batch_size: int, data: Any) -> None:
        """Build the networks and draw the minibatches."""
        self.algorithm, self.data, self.batch_size = make(name, hidden, batch_size), data, batch_size
        self.algorithm.build_with_dataset(data)
        self.batches = [data.sample_transition_batch(batch_size) for _ in range(PREPARED)]
        self.tensors = [
            d3rlpy.torch_utility.TorchMiniBatch.from_batch(
                batch=batch,
                gamma=0.99,
                compute_returns_to_go=False,
                device="cpu:0",
                observation_scaler=None,
                action_scaler=None,
                reward_scaler=None,
            )
            for batch in self.batches
        ]

    def time(self, steps: int) -> dict[str, float]:
        """Return processor seconds of ``steps`` steps without and with drawing minibatches."""
        start = time.process_time()
        for i in range(steps):
            self.algorithm.impl.update(self.tensors[i % PREPARED], i)
        middle = time.process_time()
        for _ in range(steps):
            self.algorithm.update(self.data.sample_transition_batch(self.batch_size))
        return {"update": middle - start, "whole": time.process_time() - middle}

    def parameters(self) -> int:
        """Return the number of parameters that are learned."""
        modules = self.algorithm.impl.modules
        networks = {name: module for name, module in vars(modules).items() if isinstance(module, torch.nn.Module)}
        return sum(p.numel() for name, net in networks.items() if "targ" not in name for p in net.parameters())


def load(path: str) -> Any:
    """Return the rows as d3rlpy keeps them."""
    rows = np.load(path)
    return d3rlpy.dataset.MDPDataset(
        rows["obs"], rows["action"], rows["reward"], np.zeros(len(rows["obs"]), np.float32), rows["timeout"]
    )


def main() -> None:
    """Answer until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr  # d3rlpy writes its log to standard output
    request = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    d3rlpy.seed(SEED)
    data = load(request["data"])
    cases = {name: Case(name, hidden, request["batch_size"], data) for name, hidden in request["cases"].items()}
    about = {
        "versions": {name: metadata.version(name) for name in ("d3rlpy", "torch", "numpy")},
        "parameters": {name: case.parameters() for name, case in cases.items()},
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(cases[asked["case"]].time(asked["steps"])), file=answers, flush=True)


if __name__ == "__main__":
    main()

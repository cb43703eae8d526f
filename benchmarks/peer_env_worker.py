"""Step environments of another virtual environment on request; started by ``env_throughput`` with ``--peer-python``.

Each line on standard input is ``{"env": id, "steps": n}``; the answer is one line ``{"wall_s", "resets"}`` for n steps
of random actions, resets included, or ``{"error"}``. An environment is made, reset and stepped once before its clock
starts, and kept for the next request.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import peer_shim

ACTIONS = 256
WARM_UP = 20


class Runner:
    """One environment that goes on from request to request."""

    def __init__(self, name: str) -> None:
        """Make it with Safety-Gymnasium's make, whose step returns six values."""
        import safety_gymnasium

        self.env: Any = safety_gymnasium.make(name)
        self.env.action_space.seed(0)
        self.actions = [self.env.action_space.sample() for _ in range(ACTIONS)]
        self.env.reset(seed=0)
        self.run(WARM_UP)

    def run(self, steps: int) -> dict[str, Any]:
        """Return how long so many steps took, and how many resets were among them."""
        step, reset, actions = self.env.step, self.env.reset, self.actions
        resets, start = 0, time.perf_counter()
        for index in range(steps):
            *_, terminated, truncated, _ = step(actions[index % ACTIONS])
            if terminated or truncated:
                reset()
                resets += 1
        return {"wall_s": time.perf_counter() - start, "resets": resets}


def main() -> None:
    """Answer until standard input ends."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # the libraries print
    peer_shim.install()
    runners: dict[str, Runner] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            name = request["env"]
            if name not in runners:
                runners[name] = Runner(name)
            answer = runners[name].run(request["steps"])
        except Exception as error:  # whatever a library raises goes to the one who asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""The candidates' random stream: a function of seed, observation and proposal alone."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from filter_helpers import OBS, StubModel, build, first_axis, step


def test_samples_are_those_of_a_fresh_generator_with_the_hash_as_key():
    drawn = []

    class Model(StubModel):
        def sample(self, obs, n, rng):
            drawn.append(rng.standard_normal((n, 2), dtype=np.float32))
            return drawn[-1]

    action_filter = build(Model(first_axis, threshold=0.0), seed=5, max_samples=7)
    for tick in range(3):  # the generator is used again and must start anew
        step(action_filter, [0.5, 0.25], tick, obs=OBS)
    digest = blake2b((5).to_bytes(8, "little") + OBS.tobytes() + np.array([0.5, 0.25]).tobytes(), digest_size=16)
    fresh = np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest(), "little")))
    expected = fresh.standard_normal((7, 2), dtype=np.float32)
    assert len(drawn) == 3
    assert all(np.array_equal(samples, expected) for samples in drawn)

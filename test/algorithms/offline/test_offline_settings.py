"""Every key of every offline algorithm is read by the algorithm: none is accepted and then without effect."""

import pytest
from offline_worlds import noise_rows, small_config

from safe_rl_ros.algorithms.offline import OFFLINE_ALGORITHMS

OTHER_SETTINGS = {
    "fisor": {"violation_from": "cost"},
    "brac": {"target_divergence": 1.0},
}
"""Second runs for the keys that matter only beside another."""


def keys_read(name, **settings):
    """Return the keys that making, feeding, fitting and exporting a learner read."""
    config, read = small_config(name, **settings), set()

    class Watched(type(config)):
        def __getattribute__(self, key):
            if key in type(config).model_fields:
                read.add(key)
            return super().__getattribute__(key)

    watched = Watched.model_validate(config.model_dump())
    read.clear()
    learner = OFFLINE_ALGORITHMS[name][1](watched, 3, 2, 0)
    learner.attach(noise_rows(), 20)
    learner.fit(5)
    learner.policy()
    if learner.critic() is not None:
        assert 0.0 <= learner.threshold <= 1.0
    return read


@pytest.mark.parametrize("name", sorted(OFFLINE_ALGORITHMS))
def test_every_key_is_read(name):
    read = keys_read(name)
    if name in OTHER_SETTINGS:
        read |= keys_read(name, **OTHER_SETTINGS[name])
    assert read | {"name"} == set(OFFLINE_ALGORITHMS[name][0].model_fields)

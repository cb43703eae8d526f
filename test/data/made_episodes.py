"""Small data sets with numbers that tell rows and columns apart."""

import dataclasses

import numpy as np

from safe_rl_ros.data.episodes import Behaviour, DatasetInfo, Episode

INFO = DatasetInfo(
    name="made",
    task="line",
    robot_spec_hash="abc",
    obs_names=("x", "y", "z"),
    axes=("left", "right"),
    max_episode_steps=9,
    cost_limit=2.0,
    control_period_s=0.1,
    provenance="made by hand",
)


def make_episode(steps=4, *, seed=0, terminated=False, full=True):
    rng = np.random.default_rng(seed)

    def column(*shape):
        return rng.uniform(-1.0, 1.0, shape).astype(np.float32)

    margin = column(steps)
    return Episode(
        obs=10.0 * column(steps + 1, 3),
        action=column(steps, 2),
        reward=column(steps),
        cost=np.where(margin <= 0.0, np.float32(0.75), np.float32(0.25)),
        margin=margin,
        intervened=np.arange(steps) % 3 == 1,
        terminated=terminated,
        truncated=not terminated,
        behaviour=Behaviour(3.0 * column(steps, 2), column(steps, 2), np.abs(column(steps, 2))) if full else None,
        time_s=np.cumsum(rng.uniform(0.05, 0.15, steps + 1)) if full else None,
        notes={"source": "driver", "end": "gap", "drops": 3, "estop": False, "age_s": 0.25} if full else {},
    )


def make_episodes():
    return [
        make_episode(4, seed=1),
        make_episode(1, seed=2, terminated=True, full=False),
        make_episode(9, seed=3, terminated=True),
    ]


def assert_same(found, expected, *, exact=("obs", "action", "reward", "cost", "margin", "intervened")):
    for name in exact:
        got, want = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(got, want, err_msg=name)
        assert got.dtype == want.dtype, name
    assert (found.terminated, found.truncated) == (expected.terminated, expected.truncated)


def assert_identical(found, expected):
    assert_same(found, expected)
    assert (found.behaviour is None) == (expected.behaviour is None)
    if expected.behaviour is not None:
        for field in dataclasses.fields(Behaviour):
            np.testing.assert_array_equal(
                getattr(found.behaviour, field.name), getattr(expected.behaviour, field.name), err_msg=field.name
            )
    np.testing.assert_array_equal(found.time_s, expected.time_s)
    assert dict(found.notes) == dict(expected.notes)
    assert [type(value) for value in found.notes.values()] == [type(value) for value in expected.notes.values()]


def changed(episode, **changes):
    return dataclasses.replace(episode, **changes)


def add_and_raise(sink, error):
    with sink:
        sink.add(make_episode())
        raise error


def add_and_end(sink):
    with sink:
        sink.add(make_episode())

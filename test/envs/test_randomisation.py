"""Randomisation files: what they may say, and that an episode's seed alone decides what is drawn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from safe_rl_ros.config import build, dump_yaml, load_config
from safe_rl_ros.envs.randomisation import Randomisation, Spread, as_record, load_randomisation, parameter_draw
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.envs.twin_parameters import NEUTRAL, OF_BASES, OF_JOINTS, TwinParameters
from safe_rl_ros.types import ConfigError


def made(**values: object) -> Randomisation:
    return build(Randomisation, values, "test")


def test_ranges_by_hand():
    uniform, logarithmic = Spread(uniform=(2.0, 6.0)), Spread(log_uniform=(0.5, 8.0))
    assert [uniform.at(share) for share in (0.0, 0.25, 1.0)] == [2.0, 3.0, 6.0]
    # From 1/2 to 8 are four doublings: a quarter of the way is one of them.
    assert [logarithmic.at(share) for share in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.5, 1.0, 2.0, 8.0])
    # Rounding never leads out of the range.
    assert Spread(log_uniform=(0.1, 0.1)).at(0.7) == 0.1


def test_an_empty_file_is_the_neutral_twin():
    assert made().draw(7) == NEUTRAL == TwinParameters()


def test_the_seed_alone_decides_and_every_seed_differs():
    spread = made(mass_scale={"uniform": [0.5, 2.0]}, lag_s={"uniform": [0.0, 0.2]})
    again = made(mass_scale={"uniform": [0.5, 2.0]}, lag_s={"uniform": [0.0, 0.2]})
    drawn = [spread.draw(seed) for seed in range(300)]
    assert drawn == [again.draw(seed) for seed in range(300)]
    assert len({parameters.mass_scale for parameters in drawn}) == 300
    masses, lags = (np.array([getattr(its, name) for its in drawn]) for name in ("mass_scale", "lag_s"))
    assert masses.min() >= 0.5
    assert masses.max() <= 2.0
    # Mean and standard deviation of a uniform distribution on [.5, 2]: 1.25 and 1.5 / sqrt(12) = .433.
    assert masses.mean() == pytest.approx(1.25, abs=4.0 * 0.433 / math.sqrt(300))
    assert masses.std() == pytest.approx(0.433, rel=0.1)
    assert abs(np.corrcoef(masses, lags)[0, 1]) < 4.0 / math.sqrt(300)
    assert spread.draw(2**62).mass_scale != spread.draw(2**62 + 1).mass_scale


def test_a_key_more_changes_no_other_key():
    alone = made(lag_s={"uniform": [0.0, 0.2]})
    more = made(lag_s={"uniform": [0.0, 0.2]}, mass_scale={"uniform": [0.5, 2.0]}, friction_scale=0.7)
    for seed in range(20):
        assert alone.draw(seed).lag_s == more.draw(seed).lag_s
    assert more.draw(3).friction_scale == 0.7


@pytest.mark.parametrize(
    ("seed", "mass", "friction", "lag"),
    [
        (0, 1.1326208987151982, 1.7975450655634735, 0.14943355870582714),
        (5, 1.5475547051551708, 0.2696843322842186, 0.08426821879855845),
        (2**40, 1.6548821917259628, 0.3215257142080375, 0.158126064534959),
    ],
    ids=["0", "5", "2**40"],
)
def test_the_draws_of_a_seed_stay_what_they_are(seed: int, mass: float, friction: float, lag: float):
    """As they were when this was written: a recorded run can be made again."""
    uniform = {"mass_scale": {"uniform": [0.5, 2.0]}, "lag_s": {"uniform": [0.0, 0.2]}}
    found = made(**uniform, friction_scale={"log_uniform": [0.25, 4.0]}).draw(seed)
    assert (found.mass_scale, found.friction_scale, found.lag_s) == pytest.approx((mass, friction, lag), rel=1e-12)


def test_the_layout_of_a_seed_stays_what_it_is():
    """The same with and without randomisation, and as it was when this was written."""
    layouts = []
    for randomisation in (None, "rover"):
        env = make_robot_env(randomisation=randomisation)
        try:
            drawn = env.reset(seed=5)[1].get("twin_parameters")
            assert (drawn is not None) == (randomisation is not None)
            layouts.append(env.unwrapped.backend.layout)
        finally:
            env.close()
    for layout in layouts:
        assert layout.start.tolist() == pytest.approx([1.3420128644796727, 1.3549394748405725, 0.0962933399642707])
        assert layout.hazards[0].tolist() == pytest.approx([-0.942473927612177, -1.9627049095207119, 0.3])
        assert layout.goals[1].tolist() == pytest.approx([1.7399722534221547, 1.6376600593070743])
    for name in ("start", "hazards", "goals"):
        np.testing.assert_array_equal(*(getattr(layout, name) for layout in layouts), err_msg=name)


@pytest.mark.parametrize("name", ["rover", "jackal", "arm", "panda", "laikago"])
def test_the_shipped_files_load_and_draw_within_their_ranges(name: str):
    given = load_randomisation(name)
    for seed in range(50):
        drawn = given.draw(seed)
        for key, value in given:
            low, high = value.ends if isinstance(value, Spread) else (value, value)
            assert low <= getattr(drawn, key) <= high, key


def test_files_of_bases_stay_what_they_were_before_joints_had_parameters():
    written = dump_yaml(load_randomisation("rover"))
    assert not any(name in written for name in OF_JOINTS)
    assert all(f"{name}:" in written for name in OF_BASES)
    assert "effort_scale:" in dump_yaml(load_randomisation("arm"))


def test_a_file_written_reads_back_to_itself(tmp_path: Path):
    given = load_randomisation("rover")
    path = tmp_path / "mine.yaml"
    path.write_text(dump_yaml(given))
    assert load_config(Randomisation, path) == given == load_randomisation(path)
    assert load_randomisation(path).draw(11) == given.draw(11)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mass": 1.0}, "mass = 1.0: unknown key"),
        ({"mass_scale": {"uniform": [2.0, 1.0]}}, r"range \[2, 1\] is upside down"),
        ({"mass_scale": {"uniform": [0.0, 1.0]}}, r"mass_scale.*greater than or equal to 0\.1"),
        ({"mass_scale": 11.0}, r"mass_scale.*less than or equal to 10"),
        ({"lag_s": {"log_uniform": [0.0, 0.1]}}, "expected a number above 0"),
        ({"lag_s": {"uniform": [0.0, 0.1], "log_uniform": [0.01, 0.1]}}, "exactly one of uniform and log_uniform"),
        ({"lag_s": {}}, "exactly one of uniform and log_uniform"),
        ({"lag_s": {"uniform": [0.1]}}, "lag_s"),
        ({"lag_s": {"normal": [0.1, 0.2]}}, "unknown key"),
        ({"actuation_delay_s": {"uniform": [-0.1, 0.1]}}, "actuation_delay_s.*greater than or equal to 0"),
        ({"observation_delay_s": 1.5}, "observation_delay_s.*less than or equal to 1"),
        ({"scan_std_m": math.nan}, "scan_std_m"),
        ({"gain_linear": {"uniform": [0.9, math.inf]}}, "gain_linear"),
        ({"gain_linear": "wide"}, "gain_linear"),
    ],
)
def test_what_is_wrong_is_one_error_that_names_it(values: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        made(**values)


def test_parameters_are_given_as_files_ranges_or_numbers():
    fixed = TwinParameters(mass_scale=1.5)
    assert parameter_draw(None) is None
    assert parameter_draw(fixed)(1) is parameter_draw(fixed)(2) is fixed
    expected = load_randomisation("rover").draw(4)
    assert parameter_draw("rover")(4) == parameter_draw("rover.yaml")(4) == expected
    assert build(TwinParameters, as_record(expected), "record") == expected
    with pytest.raises(ConfigError, match=r"'nowhere\.yaml' does not exist"):
        parameter_draw("nowhere")

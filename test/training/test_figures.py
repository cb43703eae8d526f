import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from run_fakes import fake_rows, write_fake_run

from safe_rl_ros.algorithms import ALGORITHMS
from safe_rl_ros.training.comparison import Group, group_runs
from safe_rl_ros.training.figure_style import CSS_LINES, SPARE, STYLES, family_order, styles_of
from safe_rl_ros.training.figures import PANELS, band_of, draw_task, figure_bytes, panels_with_data, write_figure
from safe_rl_ros.training.run_records import load_record


def groups_of(tmp_path: Path) -> list[Group]:
    return group_runs([load_record(path) for path in sorted(tmp_path.iterdir())])["point_goal"]


@pytest.fixture
def two_groups(tmp_path: Path) -> list[Group]:
    for seed in range(3):
        write_fake_run(tmp_path / f"csc_{seed}", "csc", seed, cost_limit=0.025)
        write_fake_run(tmp_path / f"trpo_{seed}", "trpo", seed)
    return groups_of(tmp_path)


def test_every_algorithm_looks_like_no_other_and_always_the_same() -> None:
    assert set(ALGORITHMS) <= set(STYLES)
    looks = [*STYLES.values(), *SPARE[:7]]
    assert len(set(looks)) == len(looks)
    assert {style.dash for style in [*STYLES.values(), *SPARE]} <= set(CSS_LINES)
    assert styles_of(["trc", "csc"])["csc"] == styles_of(["csc"])["csc"] == STYLES["csc"]


def test_unknown_labels_get_spare_styles_by_name() -> None:
    found = styles_of(["csc b", "trc", "csc a"])
    assert (found["csc a"], found["csc b"]) == (SPARE[0], SPARE[1])
    order = sorted([("new", "new"), ("sac", "sac"), ("trc", "trc")], key=lambda pair: family_order(*pair))
    assert [label for _, label in order] == ["trc", "sac", "new"]


def test_the_figure_has_a_panel_for_what_there_is(two_groups: list[Group]) -> None:
    figure = draw_task("point_goal", two_groups)
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_title(loc="left")]
    assert titles == [panel.title for panel in PANELS] + ["Final return against violations"]
    assert "95 % t-interval over 3 seeds" in figure.get_suptitle()
    assert "trailing means over 2,000 steps" in figure.get_suptitle()  # 5 % of 40 000
    cvar = next(axis for axis in figure.axes if axis.get_title(loc="left").startswith("CVaR"))
    assert any(list(line.get_ydata()) == [25.0, 25.0] for line in cvar.get_lines())
    vetoed = next(axis for axis in figure.axes if axis.get_title(loc="left").endswith("vetoed"))
    assert {line.get_color() for line in vetoed.get_lines()} == {STYLES["csc"].colour}  # trpo has none
    assert "over 500 steps" in draw_task("point_goal", two_groups, window=500.0).get_suptitle()
    plt.close("all")


def test_an_old_run_has_fewer_panels(tmp_path: Path) -> None:
    rows = [{"steps": 100.0 * k, "return_mean": float(k), "failures_total": float(k)} for k in range(1, 9)]
    write_fake_run(tmp_path / "old", "csc", 0, rows=rows)
    groups = groups_of(tmp_path)
    assert [panel.title for panel in panels_with_data(groups)] == ["Return per episode", "Violations so far"]
    figure = draw_task("point_goal", groups)
    assert "1 seed" in figure.get_suptitle()
    assert "interval" not in figure.get_suptitle()
    plt.close(figure)


def test_the_mean_is_over_seeds_after_smoothing(tmp_path: Path) -> None:
    for seed in range(2):
        rows = [{"steps": 10.0, "return_mean": 1.0}, {"steps": 20.0, "return_mean": 3.0 + 4 * seed}]
        write_fake_run(tmp_path / str(seed), "trc", seed, rows=[*rows, {"steps": 30.0, "return_mean": math.nan}])
    (group,) = groups_of(tmp_path)
    band = band_of(PANELS[0], group, window=20.0)
    assert band is not None
    np.testing.assert_array_equal(band.grid, [10, 20])  # nothing new is said at 30
    np.testing.assert_allclose(band.mean, [1.0, ((1 + 3) / 2 + (1 + 7) / 2) / 2])
    assert band_of(PANELS[1], group, window=20.0) is None


def test_axes_hold_the_seeds_and_not_the_whole_interval(tmp_path: Path) -> None:
    # The t-interval of two seeds at 1 and 2 reaches from -4.9 to 7.9.
    for seed in range(2):
        rows = [{"steps": 10.0 * k, "return_mean": 1.0 + seed} for k in range(1, 4)]
        write_fake_run(tmp_path / str(seed), "trc", seed, rows=rows)
    figure = draw_task("point_goal", groups_of(tmp_path))
    low, high = figure.axes[0].get_ylim()
    assert 0.8 < low < 1.0
    assert 2.0 < high < 2.2
    plt.close(figure)


def test_a_crowd_of_algorithms_is_drawn(tmp_path: Path) -> None:
    for algorithm in STYLES:
        write_fake_run(tmp_path / algorithm, algorithm, 0, rows=fake_rows(algorithm, 0, epochs=6))
    figure = draw_task("point_goal", groups_of(tmp_path))
    legends = [axis.get_legend() for axis in figure.axes if axis.get_legend()] + list(figure.legends)
    assert [text.get_text() for text in legends[0].get_texts()] == list(STYLES)
    plt.close(figure)


def test_the_same_figure_gives_the_same_bytes(two_groups: list[Group], tmp_path: Path) -> None:
    images = []
    for _ in range(2):
        figure = draw_task("point_goal", two_groups)
        images.append(figure_bytes(figure, "svg"))
        path = write_figure(figure, tmp_path / "plots" / "a.png")
        plt.close(figure)
    assert images[0] == images[1]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_nothing_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="no runs to draw"):
        draw_task("point_goal", [])

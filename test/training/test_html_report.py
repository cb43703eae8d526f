import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_fakes import fake_rows, write_fake_run

from safe_rl_ros.training.comparison import Estimate
from safe_rl_ros.training.html_report import COLUMNS, Cell, cell_of, write_report
from safe_rl_ros.types import ConfigError

NAN = float("nan")
VOID = {"meta", "img", "br"}
BY_FIGURE = {column.figure: column for column in COLUMNS}


class Page(HTMLParser):
    """Collects what a browser would load, the text, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sweep of two algorithms, one seed of which was cut short, with markup in a setting."""
    top = tmp_path_factory.mktemp("sweep")
    for seed in range(3):
        rows = fake_rows("csc", seed, epochs=12 if seed == 2 else 40)
        write_fake_run(top / "csc" / f"seed_{seed}", "csc", seed, rows=rows, finished=seed < 2, cost_limit=0.03)
        write_fake_run(top / "trpo" / f"seed_{seed}", "trpo", seed, note="<script>alert('&')</script>")
    return top


def test_the_page_is_whole_and_loads_nothing(sweep: Path, tmp_path: Path) -> None:
    tasks, files = write_report([sweep], tmp_path / "out")
    assert [group.label for group in tasks["point_goal"]] == ["csc", "trpo"]
    assert [path.name for path in files] == ["report.html", "point_goal.png", "results.csv", "summary.csv"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in files}
    text = files[0].read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert len(page.loaded) == 1
    image = base64.b64decode(page.loaded[0].removeprefix("data:image/svg+xml;base64,")).decode()
    assert "<svg" in image
    references = re.findall(r'href="([^"]*)"|url\(([^)]*)\)', image)
    assert references
    assert all((a or b).startswith("#") for a, b in references)


def test_the_page_tells_what_is_in_it(sweep: Path, tmp_path: Path) -> None:
    write_report([sweep], tmp_path, window=1000.0)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    words = " ".join(" ".join(page.words).split())
    assert "6 runs: tasks point_goal; seeds 0, 1, 2." in words
    assert "Limit on the CVaR of the episode cost: 30." in words
    assert "smoothed over 1,000 steps" in words
    assert "12,000 of 40,000 not finished" in words
    assert "of 3, rest short" in words  # the seed that was cut short is in no total
    assert "torch 2.5" in words
    assert "cost_limit: 0.03" in words
    assert "<script>alert('&')</script>" in words  # as text


def test_a_given_limit_stands_in_for_the_runs_own(sweep: Path, tmp_path: Path) -> None:
    tasks, _ = write_report([sweep], tmp_path, limit=1e6)
    estimate = tasks["point_goal"][0].estimates()["until"]
    assert (estimate.count, estimate.of) == (2, 2)
    assert estimate.mean == 2000.0  # the first epoch of the fakes has no CVaR
    text = (tmp_path / "report.html").read_text()
    assert text.count('class="met"') == 2
    assert "1e+06" in (tmp_path / "summary.csv").read_text() or "1000000" in (tmp_path / "summary.csv").read_text()


def test_a_run_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    write_fake_run(tmp_path / "good", "csc", 0)
    write_fake_run(tmp_path / "bad", "csc", 1)
    (tmp_path / "bad" / "metrics.csv").write_text("steps\n")
    _, (page, *_) = write_report([tmp_path / "good", tmp_path / "bad"], tmp_path / "out")
    assert "left out" in page.read_text()
    with pytest.raises(ConfigError, match="none of the 1"):
        write_report([tmp_path / "bad"], tmp_path / "out")


def test_an_old_run_without_configuration_is_reported(tmp_path: Path) -> None:
    write_fake_run(tmp_path / "old", "csc", 0, rows=[{"steps": 10.0, "return_mean": 2.0, "failures_total": 1.0}])
    (tmp_path / "old" / "config.yaml").unlink()
    (tmp_path / "old" / "summary.json").unlink()
    tasks, (page, *_) = write_report([tmp_path / "old"], tmp_path / "out")
    assert list(tasks) == ["unknown"]
    assert "No run has a limit on its cost." in page.read_text()


@pytest.mark.parametrize(
    ("figure", "estimate", "limit", "expected"),
    [
        ("cost", Estimate(20.04, 18.0, 22.08, 5, 5), 25.0, Cell("20.0", "[18.0, 22.1]", "± 2.0")),
        ("violations", Estimate(1234.5, NAN, NAN, 1, 1), 25.0, Cell("1,234")),
        ("until", Estimate(40000, 3e4, 5e4, 4, 5), 25.0, Cell("40,000", "4 of 5 seeds", "(4/5)")),
        ("until", Estimate(NAN, NAN, NAN, 0, 5), 25.0, Cell("not reached")),
        ("until", Estimate(NAN, NAN, NAN, 0, 5), NAN, Cell("no limit")),
        ("score", Estimate(NAN, NAN, NAN, 0, 5), 25.0, Cell("-")),
        ("wall_s", Estimate(120.0, 60.0, 180.0, 3, 3), 25.0, Cell("2.0", "[1.0, 3.0]", "± 1.0")),
        ("steps", Estimate(4e4, 4e4, 4e4, 3, 3), 25.0, Cell("40,000")),
    ],
)
def test_cells(figure: str, estimate: Estimate, limit: float, expected: Cell) -> None:
    assert cell_of(BY_FIGURE[figure], estimate, limit) == expected

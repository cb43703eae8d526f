"""One self-contained page about a data set: figures, what to look out for, episodes, coverage and gaps."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from safe_rl_ros.config import dump_yaml
from safe_rl_ros.data.episodes import EpisodeReader
from safe_rl_ros.data.summary import GAP_PERIODS, Columns, DatasetSummary, summarise
from safe_rl_ros.training.dataset_figures import MAX_PANELS, draw_columns, draw_coverage, draw_ends, draw_episodes
from safe_rl_ros.training.figures import figure_bytes
from safe_rl_ros.training.html_template import HEAD
from safe_rl_ros.training.import_section import import_tables, read_import
from safe_rl_ros.types import ConfigError

PAGE = (
    HEAD
    + """<h2>Figures</h2>
<div class="scroll"><table class="words"><tbody>
{% for name, value in figures %}<tr><td>{{ name }}</td><td>{{ value }}</td></tr>
{% endfor %}</tbody></table></div>
{% for table in tables %}<h2>{{ table.title }}</h2>
{% if table.image %}<img alt="{{ table.title }}" src="{{ table.image }}" style="{{ table.style }}">
{% endif %}<p class="note">{{ table.note }}</p>
{% if table.rows %}<details{% if table.rows|length <= 16 %} open{% endif %}>
<summary>{{ table.rows|length }} rows</summary>
<div class="scroll"><table>
<thead><tr>{% for head in table.columns %}<th>{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div></details>
{% endif %}{% endfor %}<h2>What the data set says about itself</h2>
<details open><summary>info</summary><pre>{{ info }}</pre></details>
</body>
</html>
"""
)


def figure_rows(summary: DatasetSummary) -> list[tuple[str, str]]:
    """Return the figures of a data set as words, for the page and the terminal."""
    values, info = summary.figures(), summary.info

    def spread(name: str, form: str) -> str:
        one = values[name]
        return (
            f"{format(one['mean'], form)} mean, {format(one['median'], form)} median, {format(one['min'], form)} to"
            f" {format(one['max'], form)}"
        )

    period = "unknown" if info.control_period_s is None else f"{info.control_period_s:g} s"
    rows = [
        ("task", info.task),
        ("episodes", f"{summary.episodes:,} ({summary.terminated:,} truly ended, the others cut)"),
        ("steps", f"{summary.steps:,} of {period}"),
        ("observation, action", f"{info.obs_dim} entries, {info.act_dim} axes"),
        ("return of an episode", spread("return", ".3f")),
        ("cost of an episode", spread("cost", ".2f")),
        ("steps of an episode", spread("length", ".0f")),
        (f"episodes within the cost limit {info.cost_limit:g}", f"{values['within_cost_limit']:.1%}"),
        ("episodes with a violation", f"{values['episodes_with_violation']:.1%}"),
        ("violations per 1000 steps", f"{values['violations_per_1000_steps']:.2f}"),
        ("margin", "signed" if info.margin_kind == "signed" else "made from the cost"),
        ("steps with an intervention", f"{values['intervened']:.1%}"),
    ]
    if summary.timed:
        late = "" if info.control_period_s is None else f", {summary.late:,} longer than {GAP_PERIODS:g} periods"
        rows.append(("measured steps", f"{summary.timed:,}, the longest {summary.longest_step_s:.4g} s{late}"))
    return rows


def _embedded(figure: Figure) -> str:
    try:
        return "data:image/png;base64," + base64.b64encode(figure_bytes(figure, "png")).decode()
    finally:
        plt.close(figure)


def _episode_table(summary: DatasetSummary) -> dict[str, Any]:
    sources = summary.figures()["sources"]
    return {
        "title": "Episodes",
        "image": _embedded(draw_episodes(summary)),
        "style": "",
        "note": "Each source is a policy, or what else the episodes' remarks name.",
        "columns": ["source", "episodes", "mean return", "mean cost"],
        "rows": [
            (name, f"{one['episodes']:,}", f"{one['return_mean']:.3f}", f"{one['cost_mean']:.2f}")
            for name, one in sources.items()
        ],
    }


def _end_table(summary: DatasetSummary) -> dict[str, Any]:
    note = "An episode that is cut at a time limit, a gap or the end of a recording goes on for the learner."
    if summary.timed:
        note += f" The longest time between two measurements within an episode is {summary.longest_step_s:.4g} s."
    return {
        "title": "Ends and gaps",
        "image": _embedded(draw_ends(summary)),
        "style": f"max-width: {60 if summary.timed else 30}rem",
        "note": note,
        "columns": [],
        "rows": [],
    }


def _column_table(
    summary: DatasetSummary, title: str, names: tuple[str, ...], columns: Columns, kind: str
) -> dict[str, Any]:
    obs, action, unsafe = summary.sample.rows
    rows = [
        (name, *(f"{values[i]:.4g}" for values in (columns.low, columns.mean, columns.std, columns.high)))
        for i, name in enumerate(names)
    ]
    shown = "" if len(names) <= MAX_PANELS else f" The first {MAX_PANELS} of {len(names)} are drawn."
    heads = ["name", "least", "mean", "std", "largest"]
    if kind == "action":
        heads.append("at a bound")
        share = summary.saturated / summary.steps
        rows = [(*row, f"{share[i]:.1%}") for i, row in enumerate(rows)]
    return {
        "title": title,
        "image": _embedded(draw_columns(names, action if kind == "action" else obs, unsafe, kind)),
        "style": f"max-width: {min(len(names), 8) * 11}rem",
        "note": f"Of {len(unsafe):,} steps; red: the step violated the margin.{shown}",
        "columns": heads,
        "rows": rows,
    }


def _coverage_table(summary: DatasetSummary) -> dict[str, Any]:
    obs, _, unsafe = summary.sample.rows
    figure, share = draw_coverage(obs, unsafe)
    return {
        "title": "Coverage",
        "image": _embedded(figure),
        "style": "max-width: 62rem",
        "note": f"Observations of {len(unsafe):,} steps in their two principal directions, which hold {share:.0%} of"
        " the variance. A learner knows nothing about what is grey.",
        "columns": [],
        "rows": [],
    }


def render_dataset_page(summary: DatasetSummary, source: str, noted: dict[str, Any] | None = None) -> str:
    """Return the page; names from the data set are escaped. ``noted``: what its import from bags noted, if any."""
    info = summary.info
    template = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True).from_string(PAGE)
    return template.render(
        title=f"Data set {info.name}",
        about=f"{summary.episodes:,} episodes and {summary.steps:,} steps of task {info.task}, from {source}.",
        warnings=summary.warnings(),
        figures=figure_rows(summary),
        tables=[
            _episode_table(summary),
            _end_table(summary),
            *([] if noted is None else import_tables(noted)),
            _coverage_table(summary),
            _column_table(summary, "Actions", info.axes, summary.action, "action"),
            _column_table(summary, "Observations", info.obs_names, summary.obs, "observation"),
        ],
        info=dump_yaml(info),
    )


def write_dataset_report(
    reader: EpisodeReader, source: str, target: Path, on_episode: Callable[[], None] | None = None
) -> DatasetSummary:
    """Write the page about a data set to ``target``; return the figures.

    Args:
        reader: the data set.
        source: where it is, for the page.
        target: the file; its folder is made.
        on_episode: called after each episode was read.

    Raises:
        ConfigError: the data are damaged or wrong, or the folder cannot be made.
    """
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"report {target}: no folder {target.absolute().parent} can be made: {error}") from error
    noted = read_import(source)
    summary = summarise(reader.info, reader, on_episode)
    page = render_dataset_page(summary, source, noted)
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(target)
    return summary


def finite(value: Any) -> Any:
    """Return figures with every number that JSON does not know as None."""
    if isinstance(value, dict):
        return {name: finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The report's page as a Jinja template: style and figures inside, nothing to load, no script."""

STYLE = """\
  body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto; padding: 1.5rem;
         max-width: 92rem; }
  h1 { font-size: 1.6rem; margin: 0 0 .3rem; }
  h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #ddd; padding-bottom: .25rem; }
  .about, .note { color: #555; max-width: 75rem; }
  .warning { color: #8a3b00; }
  img { width: 100%; height: auto; }
  .scroll { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
  th, td { padding: .28rem .7rem; text-align: right; vertical-align: top; white-space: nowrap; }
  th { border-bottom: 2px solid #444; font-weight: 600; }
  td { border-bottom: 1px solid #e4e4e4; }
  th:first-child, td:first-child, .words td, .words th { text-align: left; }
  .interval { color: #666; font-size: .85em; display: block; }
  .swatch { display: inline-block; width: 1.9em; height: 0; border-top: 4px solid; margin-right: .6em;
            vertical-align: middle; }
  tr.met td { background: #f0f8f3; }
  details { margin: .3rem 0; }
  summary { cursor: pointer; }
  pre { background: #f6f6f6; padding: .7rem; overflow-x: auto; font-size: .85em; }
"""
"""What every page looks like."""

HEAD = (
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
"""
    + STYLE
    + """</style>
</head>
<body>
<h1>{{ title }}</h1>
<p class="about">{{ about }}</p>
{% for warning in warnings %}<p class="warning">{{ warning }}</p>
{% endfor %}
"""
)
"""How every page begins: title, what it is about, warnings."""

PAGE = (
    HEAD
    + """{% for task in tasks %}
<h2>{{ task.name }}</h2>
<img alt="{{ task.alt }}" src="{{ task.image }}">
<div class="scroll"><table>
<thead><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in task.rows %}<tr{% if row.met %} class="met"{% endif %}>
<td><span class="swatch" style="border-top:4px {{ row.line }} {{ row.colour }}"></span>{{ row.label }}</td>
{% for cell in row.cells %}<td>{{ cell.text }}
{%- if cell.interval %}<span class="interval">{{ cell.interval }}</span>{% endif %}</td>
{% endfor %}</tr>
{% endfor %}</tbody>
</table></div>
<p class="note">{{ task.note }}</p>
{% endfor %}
<h2>Runs</h2>
<details{% if runs|length <= 12 %} open{% endif %}><summary>{{ runs|length }} runs</summary>
<div class="scroll"><table class="words">
<thead><tr><th>task</th><th>algorithm</th><th>seed</th><th>steps</th><th>state</th><th>run</th></tr></thead>
<tbody>
{% for run in runs %}<tr>{% for cell in run %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody>
</table></div></details>
<h2>Configurations</h2>
<p class="note">Each of the first seed; the other seeds of a group differ in nothing but the seed and the budget.</p>
{% for config in configs %}<details><summary>{{ config.name }}</summary><pre>{{ config.text }}</pre></details>
{% endfor %}
<h2>Versions</h2>
<div class="scroll"><table class="words">
<tbody>
{% for name, found in versions %}<tr><td>{{ name }}</td><td>{{ found }}</td></tr>
{% endfor %}</tbody>
</table></div>
</body>
</html>
"""
)

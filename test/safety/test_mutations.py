"""The safety tests notice a filter that is broken in one place: each mutation of a copy must fail one of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = [
    "action_filter",
    "filter_time",
    "veto",
    "candidates",
    "fallback",
    "latch",
    "shadow_mode",
    "stopping",
    "history",
]
# File, what stands there, what is put in its place.
MUTATIONS = {
    "threshold not included": (
        "guards.py",
        "return 0.0 <= risk <= threshold < np.inf",
        "return 0.0 <= risk < threshold < np.inf",
    ),
    "threshold of candidates not included": ("guards.py", "(risks <= threshold)", "(risks < threshold)"),
    "stale observation": (
        "input_guard.py",
        "if not guards.is_fresh(draft.observation_age_s, config.observation_timeout_s):",
        "if False:",
    ),
    "stale proposal": (
        "input_guard.py",
        "if not guards.is_fresh(draft.proposal_age_s, config.proposal_timeout_s):",
        "if False:",
    ),
    "unshaped command judged": ("veto.py", "rows = inputs.command[None]", "rows = inputs.proposed[None]"),
    "unshaped command judged, check skipped": (
        "veto.py",
        "rows = inputs.command[None]\n        judged = rows.tobytes()",
        "rows = inputs.proposed[None]\n        judged = inputs.command.tobytes()",
    ),
    "candidates not shaped": ("candidates.py", "own = np.clip(raw, reach.low, reach.high)", "own = raw"),
    "deadline of candidates": (
        "veto.py",
        "self._check_deadline(begin)\n        if chosen.acceptable:",
        "if chosen.acceptable:",
    ),
    "ceiling": ("veto.py", "if ceiling is not None and", "if False and"),
    "latch during a decision": (
        "action_filter.py",
        "        if stop is not None:\n",
        "        if latched is not None:\n",
    ),
    "final check against what was judged": ("pipeline.py", "same = command.tobytes() == draft.judged", "same = True"),
    "old proposal after a clear": ("action_filter.py", "self._await_newer = True", "self._await_newer = False"),
    "persisting cause": ("latch.py", "if problems:", "if False:"),
    "stop not ramped": ("stopping.py", "np.clip(limits.stop, base - step, base + step)", "limits.stop"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [None, *MUTATIONS])
def test_mutation_breaks_a_test(name, tmp_path):
    shutil.copytree(ROOT / "safe_rl_ros", tmp_path / "safe_rl_ros", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "test" / "safety", tmp_path / "test", ignore=shutil.ignore_patterns("__pycache__"))
    if name is not None:
        file, before, after = MUTATIONS[name]
        path = tmp_path / "safe_rl_ros" / "safety" / file
        source = path.read_text(encoding="utf-8")
        assert source.count(before) == 1, f"{file} has changed: mutate it elsewhere"
        path.write_text(source.replace(before, after), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *(f"test/test_{t}.py" for t in TESTS)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == (0 if name is None else 1), result.stdout[-2000:] + result.stderr[-2000:]

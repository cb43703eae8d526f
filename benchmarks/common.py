"""What every benchmark shares: arguments, figures, finished parts, targets, versions, one JSON object at the end.

The last line on standard output is ``{"name", "figures", "targets", "versions", "seeds", "quick"}``; progress goes to
standard error. ``--save`` keeps it, indented, in ``benchmarks/results/NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

RESULTS = Path(__file__).resolve().parent / "results"
LIBRARIES = (
    "numpy",
    "onnxruntime",
    "torch",
    "mujoco",
    "pybullet",
    "gymnasium",
    "safetensors",
    "ros-jazzy-rclpy",
    "ros-rclpy",
)
RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    "<": operator.lt,
    ">=": operator.ge,
    ">": operator.gt,
    "==": operator.eq,
}


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with ``--quick``, ``--output`` and ``--save``; a benchmark adds its own arguments."""
    text = (doc or "").strip()
    parser = argparse.ArgumentParser(description=text.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small numbers: shows that it runs, not how fast it is")
    parser.add_argument("--output", type=Path, help="write the JSON object to this file too")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results/")
    return parser


def run_all(function: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Iterator[Any]:
    """Yield the results of ``function`` for the jobs as they come, each in one of ``workers`` processes."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(function, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def percentiles(
    values: npt.ArrayLike, points: Sequence[float] = (50, 99, 99.9), *, scale: float = 1.0
) -> dict[str, float]:
    """Return ``{"p50": ..., "p99": ..., "max": ..., "count": ...}`` of the values times ``scale``."""
    data = np.asarray(values, dtype=np.float64) * scale
    if data.size == 0:
        return {"count": 0}
    values_at = np.percentile(data, points)
    figures = {f"p{point:g}": round(float(value), 3) for point, value in zip(points, values_at, strict=True)}
    return {**figures, "max": round(float(data.max()), 3), "count": int(data.size)}


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean of a figure over seeds with its 95 % interval, and the seeds' own values."""
    from safe_rl_ros.training.statistics import mean_interval  # here: scipy takes seconds, and few benchmarks need it

    mean, low, high = mean_interval(values)
    return {"mean": mean, "ci95": [low, high], "per_seed": list(values)}


def kept(file: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what ``file`` holds if it was made by the same JSON-able request, None if not or if there is none."""
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found if found.get("request") == json.loads(json.dumps(request)) else None


def keep(file: Path, request: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Return what ``make`` returns, with the request: from ``file`` if the same one was answered there before.

    It is the same, plain JSON, whether it was made or read. An interrupted run leaves no file, or the one before.
    """
    found = kept(file, request)
    if found is None:
        text = json.dumps({"request": request, **make()})
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(file)
        found = dict(json.loads(text))
    return found


def target(name: str, value: float, bound: float, relation: str = "<=") -> dict[str, Any]:
    """Return one target: what was measured, what was asked for, and whether it is met. NaN never is."""
    met = bool(RELATIONS[relation](value, bound))
    return {"name": name, "value": value, "bound": f"{relation} {bound:g}", "ok": met}


def versions() -> dict[str, Any]:
    """Return what the figures depend on: interpreter, libraries, processor."""
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "load_average_1min": round(os.getloadavg()[0], 2),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **found,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def progress(message: str) -> None:
    """Say where a long run is, on standard error."""
    print(message, file=sys.stderr, flush=True)


def _plain(value: Any) -> Any:
    """Return JSON-able data: numpy to plain numbers, what is not finite to null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def finish(
    name: str,
    figures: Mapping[str, Any],
    targets: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Print the result as the last line, write it where the options say, and return it."""
    result: dict[str, Any] = _plain(
        {
            "name": name,
            "figures": figures,
            "targets": targets,
            "versions": versions(),
            "seeds": list(seeds),
            "quick": options.quick,
        }
    )
    files = [options.output] if options.output is not None else []
    if options.save:
        files.append(RESULTS / f"{name}.json")
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(result, allow_nan=False), flush=True)
    return result

"""Faults of bundles: a learner that dies while writing one, and bad ones that are announced.

Each bad bundle is made so that only the check for its own fault can refuse it: hashes are those of what is on disk,
except where damage is the fault. It is tried here first; one that this process would load is no fault.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as dump_arrays

from benchmarks.chaos import actors
from benchmarks.chaos.bench import Bench
from benchmarks.chaos.case import Case
from safe_rl_ros.bundle.manifest import MANIFEST, content_hash, sha256
from safe_rl_ros.types import BundleError

ANSWER_S = 3.0
WEIGHTS = "weights.safetensors"
WRITING_S = 0.05
"""Writing a bundle takes about this long, so a kill within it falls into all its parts."""


def learner_killed(bench: Bench) -> Case:
    """The learner is killed while it writes a bundle; what it left is announced all the same."""
    over_old = bool(bench.rng.random() < 0.5)
    target, note, digest = _next(bench, "learner")
    if over_old:
        bench.setting.write(target, note="older", replace=True)
    ready = bench.processes.Event()
    process = actors.start(
        bench.processes, bench.domain_id, actors.learner, ready, bench.setting, target, note, over_old
    )
    bench.base.run(ready.is_set, 5.0)
    bench.base.run(timeout_s=float(bench.rng.uniform(0.0, WRITING_S)))
    process.kill()
    process.join()
    complete = _loads(bench, target, digest) is None
    case = _announce(bench, target, digest, "complete" if complete else "incomplete", "learner", complete)
    if over_old and not complete and not target.exists():
        case.variant = "replaced one moved away"
    return case


def truncated(bench: Bench) -> Case:
    """A file of the bundle ends early."""
    target, digest = _written(bench, "truncated")
    file = target / str(bench.rng.choice([WEIGHTS, MANIFEST]))
    data = file.read_bytes()
    file.write_bytes(data[: int(bench.rng.integers(len(data)))])
    return _announce(bench, target, digest, file.name, "truncated")


def bit_flipped(bench: Bench) -> Case:
    """One bit of a file differs."""
    target, digest = _written(bench, "flipped")
    file = target / str(bench.rng.choice([WEIGHTS, MANIFEST]))
    data = bytearray(file.read_bytes())
    data[int(bench.rng.integers(len(data)))] ^= 1 << int(bench.rng.integers(8))
    file.write_bytes(bytes(data))
    return _announce(bench, target, digest, file.name, "flipped")


def nan_weights(bench: Bench) -> Case:
    """One weight is NaN or infinite; every hash is right."""
    target, _ = _written(bench, "nan")
    raw = (target / WEIGHTS).read_bytes()
    arrays = {name: np.array(array) for name, array in load_arrays(raw).items()}
    name = str(bench.rng.choice(sorted(arrays)))
    arrays[name].flat[int(bench.rng.integers(arrays[name].size))] = (np.nan, np.inf)[int(bench.rng.integers(2))]
    changed = dump_arrays(arrays)
    (target / WEIGHTS).write_bytes(changed)
    manifest = (target / MANIFEST).read_text(encoding="utf-8").replace(sha256(raw), sha256(changed))
    digest = _write_manifest(target, json.loads(manifest))
    return _announce(bench, target, digest, name.partition(".")[0], "finite")


def wrong_spec(bench: Bench) -> Case:
    """A good bundle of another robot."""
    target, _, _ = _next(bench, "spec")
    other = sha256(str(bench.rng.random()).encode())
    digest = bench.setting.write(target, note=str(target), spec_hash=other)
    return _announce(bench, target, digest, "all", "robot spec")


def _write_manifest(target: Path, content: dict[str, object]) -> str:
    content["content_sha256"] = content_hash(content)
    raw = json.dumps(content, indent=1).encode()
    (target / MANIFEST).write_bytes(raw)
    return sha256(raw)


def _next(bench: Bench, kind: str) -> tuple[Path, str, str]:
    """Return a new directory's path, the note of the bundle for it, and the hash that it will have."""
    bench.bundles += 1
    note = f"{kind} {bench.seed} {bench.bundles}"
    reference = bench.setting.directory / f"reference_{bench.seed}"
    digest = bench.setting.write(reference, note=note, replace=True)
    return bench.setting.directory / f"bad_{bench.seed}_{bench.bundles}", note, digest


def _written(bench: Bench, kind: str) -> tuple[Path, str]:
    target, note, _ = _next(bench, kind)
    return target, bench.setting.write(target, note=note)


def _loads(bench: Bench, target: Path, digest: str) -> str | None:
    """Return why this bundle is refused here, None if it is not."""
    try:
        bench.setting.load(target, digest)
    except BundleError as error:
        return str(error)
    return None


def _announce(bench: Bench, target: Path, digest: str, variant: str, fault: str, complete: bool = False) -> Case:
    """Announce a bundle and wait until the filter has taken or refused it.

    Raises:
        SystemExit: the bundle is not bad, or for another reason than its fault.
    """
    reason = _loads(bench, target, digest)
    if not complete and (reason is None or (fault in ("finite", "robot spec") and fault not in reason)):
        raise SystemExit(f"the bundle with the fault {fault!r} is refused because of: {reason}")
    if complete:
        bench.ledger.allow_bundle(digest)
    bench.base.announce(str(target), digest)

    def answered() -> bool:
        state = bench.base.filter_state
        return digest in (state.get("refused_sha256"), state.get("bundle_sha256"))

    case = Case("none", variant=variant, duration_s=ANSWER_S, until=answered)

    def end() -> None:
        bench.base.run(timeout_s=2 * bench.period_s)  # commands under whatever is in force now
        if not answered():
            case.findings["no_answer"] += 1
        if bench.bad_bundle_in_force(digest) and not complete:
            case.findings["bad_bundle"] += 1
        if complete and not bench.bad_bundle_in_force(digest):
            case.findings["good_bundle_refused"] += 1
        shutil.rmtree(target, ignore_errors=True)

    case.end = end
    return case


BUNDLE_FAULTS: dict[str, Callable[[Bench], Case]] = {
    "learner_killed_while_writing": learner_killed,
    "bundle_truncated": truncated,
    "bundle_bit_flipped": bit_flipped,
    "bundle_nan_weights": nan_weights,
    "bundle_wrong_spec": wrong_spec,
}

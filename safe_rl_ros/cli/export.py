"""The command that writes a bundle for the robot: export."""

from __future__ import annotations

import enum
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from safe_rl_ros.cli.app import app, console
from safe_rl_ros.types import ConfigError

if TYPE_CHECKING:
    from safe_rl_ros.bundle import Bundle, Kind

PROBES = 256
"""Random observations on which source and target are compared."""


class FormName(str, enum.Enum):
    """How the networks are stored."""

    onnx = "onnx"
    safetensors = "safetensors"


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(help="A bundle, or a run: its bundle_calibrated if there is one, or bundle.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the new bundle.")],
    form: Annotated[
        FormName | None,
        typer.Option(
            help="onnx: run by ONNX Runtime, for Gaussian policies. safetensors: run by numpy. Unset: onnx if possible."
        ),
    ] = None,
    critic: Annotated[
        Path | None,
        typer.Option(help="A bundle or a run whose critic and threshold take the place of SOURCE's, if any."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing bundle.")] = False,
) -> None:
    """Write policy, critic, normaliser, threshold and certificate for a filter process without torch.

    The new bundle is read back, verified, and compared with the source before the command says that it is there.
    """
    from safe_rl_ros.bundle import export_bundle, load_as_is

    found = find_bundle(source)
    if output.resolve() == found.resolve():
        raise ConfigError(f"{output} is the source itself; choose another directory")
    judge = None if critic is None else find_bundle(critic)
    kind: Kind | None = None if form is None else form.value
    digest = export_bundle(found, output, kind=kind, critic_dir=judge, replace=overwrite)
    before, after = load_as_is(found), load_as_is(output)
    if judge is not None:
        before = replace(before, critic=load_as_is(judge).critic)
    if after.hash != digest or after.component_hashes() != before.component_hashes():
        raise ConfigError(f"{output} is not what was exported from {found}: did something else write there?")
    console.print(files_table(after, output))
    console.print(contents_table(before, after))
    source_text = str(found) if judge is None else f"{found} with the critic of {judge}"
    console.print(f"exported: {source_text} -> {output}\nsha256: {digest}", soft_wrap=True)


def find_bundle(source: Path) -> Path:
    """Return the bundle that is meant by a bundle's or a run's directory.

    Raises:
        ConfigError: there is none.
    """
    for path in (source, source / "bundle_calibrated", source / "bundle"):
        if (path / "manifest.json").is_file():
            return path
    raise ConfigError(f"{source} holds neither manifest.json, bundle_calibrated/ nor bundle/: is it a bundle or a run?")


def files_table(bundle: Bundle, directory: Path) -> Table:
    """Return the files of a bundle as a table."""
    table = Table(title="Files")
    for column in ("file", "bytes", "sha256"):
        table.add_column(column, justify="right" if column == "bytes" else "left", no_wrap=True)
    for name, digest in {"manifest.json": bundle.hash, **bundle.manifest.files}.items():
        table.add_row(name, f"{(directory / name).stat().st_size:,}", digest)
    return table


def contents_table(before: Bundle, after: Bundle) -> Table:
    """Return what is in a bundle, and how far its answers are from those of its source, as a table."""
    manifest, certificate = after.manifest, after.manifest.certificate
    table = Table(title="Bundle", show_header=False)
    critic, normaliser = manifest.critic, manifest.normaliser
    names = ", ".join([*manifest.obs_names[:4], "..."] if manifest.obs_dim > 5 else manifest.obs_names)
    rows = {
        "algorithm": manifest.algorithm,
        "robot or task": manifest.robot_spec_hash,
        "observation": f"{manifest.obs_dim} elements: {names}",
        "normaliser": "none" if normaliser is None else f"mean and std, clip {normaliser.clip}",
        "policy": _policy(after),
        "critic": "none" if critic is None else _critic(critic),
        "threshold": f"{after.threshold:.6g} ({manifest.threshold_mode})",
        "certificate": "none: uncalibrated" if certificate is None else certificate.summary,
        f"largest difference of {PROBES} answers": f"{largest_difference(before, after):.1e}",
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def _network(meta: dict[str, Any], inputs: int) -> str:
    from safe_rl_ros.inference import activation_of

    return " -> ".join(str(size) for size in (inputs, *meta["hidden"])) + f" ({activation_of(meta)})"


def _policy(bundle: Bundle) -> str:
    from safe_rl_ros.policies import GAUSSIAN

    meta = bundle.manifest.policy
    if meta["kind"] == GAUSSIAN:
        return _network(meta, bundle.obs_dim)
    return f"{meta['kind']}, {sum(array.size for array in bundle.policy.arrays().values()):,} numbers"


def _critic(meta: dict[str, Any]) -> str:
    network = _network(meta, meta["obs_dim"] + meta["act_dim"])
    return network if meta["members"] == 1 else f"{meta['members']} members {network}, {meta['aggregate']}"


def largest_difference(one: Bundle, other: Bundle) -> float:
    """Return the largest difference of the policy's mean and the critic's risk on random observations."""
    import numpy as np

    rng = np.random.default_rng(0)
    largest = 0.0
    for _ in range(PROBES):
        obs = rng.standard_normal(one.obs_dim).astype(np.float32)
        actions = rng.uniform(-1, 1, (2, one.act_dim)).astype(np.float32)
        largest = max(largest, float(np.abs(one.mean(obs) - other.mean(obs)).max()))
        if one.critic is not None:
            largest = max(largest, float(np.abs(one.risk(obs, actions) - other.risk(obs, actions)).max()))
    return largest

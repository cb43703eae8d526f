"""Every algorithm that learns from data through the whole session: train, stop, resume exactly, export, evaluate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from offline_helpers import small_session, write_dataset
from test_trainer import assert_same_run
from typer.testing import CliRunner

from safe_rl_ros.algorithms import OFFLINE_ALGORITHMS, is_offline
from safe_rl_ros.bundle import load_bundle
from safe_rl_ros.cli.app import app
from safe_rl_ros.policies import GAUSSIAN
from safe_rl_ros.training.algorithm_settings import load_settings
from safe_rl_ros.training.metrics import read_csv
from safe_rl_ros.training.run import StopFlag, prepare_directory, train
from safe_rl_ros.training.session_config import SessionConfig, compose_session
from safe_rl_ros.training.stored_run import evaluate_run, load_run
from safe_rl_ros.training.vector_session import VectorSession

SMALL = {
    "fisor": ("algorithm.actor_batch_size=16", "algorithm.actor_width=8", "algorithm.actor_blocks=1"),
    "brac": (),
}
OTHER_KINDS = {"fisor": "diffusion", "bcq": "perturbed_vae", "bcq_lag": "perturbed_vae", "qt_opt": "cem"}
MEASURED_STEPS = {"fisor": 17_000}
"""Of the settings that benchmarks.fisor_point measured on this task."""


@pytest.fixture(params=OFFLINE_ALGORITHMS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "toy")


def tiny(name: str, data: Path, *extra: str) -> SessionConfig:
    return small_session(data, name, *SMALL.get(name, ()), *extra)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, data: Path) -> dict[str, Path]:
    """Runs by algorithm, each trained once when it is first asked for."""
    root = tmp_path_factory.mktemp("runs")

    class Trained(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            config = tiny(name, data)
            directory = prepare_directory(config, root / name, resume=False)
            assert train(config, directory)["finished"]
            self[name] = directory
            return directory

    return Trained()


def test_the_shipped_settings_compose(name: str, data: Path) -> None:
    config = compose_session("point_robot", name, [f"data.path={data}"])
    assert config.algorithm.name == name
    assert is_offline(config.algorithm)
    assert config.training.total_steps >= MEASURED_STEPS.get(name, 100_000)
    assert load_settings(name).filter == {"critic": "off"}


def test_a_run_stopped_twice_resumes_bit_for_bit(name: str, runs: dict[str, Path], data: Path, tmp_path: Path) -> None:
    config = tiny(name, data)
    parts = prepare_directory(config, tmp_path, resume=False)
    train(config, parts, max_epochs=1)
    flag, looks = StopFlag(), []
    check = flag.check

    def check_and_stop() -> None:
        looks.append(1)
        if len(looks) == 5:  # in the middle of the evaluation of epoch 1
            flag.request()
        check()

    flag.check = check_and_stop  # type: ignore[method-assign]
    assert train(config, parts, flag=flag)["epochs"] == 1
    train(config, prepare_directory(config, tmp_path, resume=True))
    assert_same_run(runs[name], parts)


def test_metrics_are_whole(name: str, runs: dict[str, Path]) -> None:
    rows = read_csv(runs[name] / "metrics.csv")
    assert [row["steps"] for row in rows] == [12, 24, 36]
    assert [row["episodes"] for row in rows] == [0, 3, 3]
    learned = [key for key in rows[0] if key.startswith("algorithm/")]
    assert learned
    assert all(np.isfinite([row[key] for key in learned]).all() for row in rows)
    shown = ("return_mean", "cost_mean", "cost_cvar", "return_normalised", "cost_normalised", "veto_rate")
    assert np.isfinite([rows[-1][key] for key in shown]).all()
    assert np.isnan([rows[0].get(key, np.nan) for key in shown]).all()


def test_the_policy_s_kind_decides_how_it_is_exported(name: str, runs: dict[str, Path], tmp_path: Path) -> None:
    config = load_run(runs[name])
    with VectorSession(config) as session:
        keys = {"spec_hash": session.spec_hash, "obs_names": session.obs_names}
        obs, _ = session.env.reset(seed=1)
    source = load_bundle(runs[name] / "bundle", **keys)
    assert source.manifest.policy["kind"] == OTHER_KINDS.get(name, GAUSSIAN)
    assert source.normaliser is not None
    command = ["export", str(runs[name]), "-o", str(tmp_path / "robot")]
    if name in OTHER_KINDS:
        refused = CliRunner().invoke(app, [*command, "--form", "onnx"])
        assert "cannot be written as onnx: choose the form safetensors" in str(refused.exception)
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    bundle = load_bundle(tmp_path / "robot", **keys)
    assert bundle.manifest.kind == ("safetensors" if name in OTHER_KINDS else "onnx")
    assert bundle.component_hashes() == source.component_hashes()
    np.testing.assert_allclose(bundle.policy.mean(obs), source.policy.mean(obs), atol=1e-5)
    drawn = bundle.sample(obs[0], 5, np.random.default_rng(0))
    np.testing.assert_allclose(drawn, source.sample(obs[0], 5, np.random.default_rng(0)), atol=1e-5)


def test_a_stored_run_is_evaluated_as_in_training(name: str, runs: dict[str, Path]) -> None:
    again = evaluate_run(runs[name], VectorSession, 3, seed=0)
    last = read_csv(runs[name] / "metrics.csv")[-1]
    assert again.summary()["return_mean"] == pytest.approx(last["return_mean"], rel=1e-6)
    assert again.summary()["cost_mean"] == pytest.approx(last["cost_mean"], rel=1e-6)


@pytest.mark.parametrize("name", ["fisor", "safety_critic"])
def test_a_critic_from_data_vetoes_what_its_policy_proposes(name: str, data: Path, tmp_path: Path) -> None:
    """Any kind of policy stands behind the veto; its own samples replace what is vetoed."""
    config = tiny(name, data, "filter.critic=enforce", "filter.threshold=0.0", "filter.max_samples=5")
    train(config, prepare_directory(config, tmp_path, resume=False))
    rows = read_csv(tmp_path / config.name / "metrics.csv")
    assert rows[-1]["veto_rate"] > 0.9  # at threshold 0 nothing passes

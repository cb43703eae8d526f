"""How a session on a robot or twin begins with what is known already: logged data, an offline run or bundle."""

from __future__ import annotations

import logging
from pathlib import Path

from safe_rl_ros.algorithms.base import Algorithm
from safe_rl_ros.bundle import Bundle, load_bundle
from safe_rl_ros.config import load_config
from safe_rl_ros.data.replay_buffer import ReplayBuffer
from safe_rl_ros.training.logged_data import check_content, load_logged
from safe_rl_ros.training.session import Session
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import ConfigError

logger = logging.getLogger(__name__)


def begin(config: SessionConfig, session: Session, algorithm: Algorithm, buffer: ReplayBuffer) -> None:
    """Fill the buffer and fit the learner as ``training.seed_data`` and ``training.start_from`` say.

    The safety critic is the bundle's where algorithm and bundle have one, else fitted on the data.

    Raises:
        ConfigError: data, run or bundle are missing, wrong, or of another task.
        BundleError: the bundle is damaged or of another task.
    """
    training = config.training
    source = None if training.start_from is None else Path(training.start_from)
    bundle = None if source is None else _bundle(source, session)
    path = _data_of(source) if training.seed_data is None else training.seed_data
    if path is None:
        if bundle is not None:
            raise ConfigError(
                f"training.start_from = {training.start_from!r} names no data: expected training.seed_data beside it"
            )
        return
    rows = load_logged(path, tuple(session.obs_names), session.act_dim, session.spec_hash).batch
    buffer.add(rows if bundle is None else algorithm.with_behaviour(rows))
    if len(rows) > buffer.capacity:
        logger.warning("only the last %d of %d logged transitions fit into the buffer", buffer.capacity, len(rows))
    imitated = False
    if bundle is not None:
        learned = algorithm.warm_start(bundle.policy, bundle.critic, buffer)
        imitated = bundle.critic is not None and algorithm.critic() is not None
        logger.info("began as %s of %s: %s", bundle.manifest.algorithm, source, learned)
    if not imitated:
        for _ in range(training.seed_rounds):
            learned = algorithm.pretrain(buffer)
        logger.info("critic fitted on %d logged transitions: %s", len(buffer), learned)


def _bundle(source: Path, session: Session) -> Bundle:
    for place in (source, source / "bundle_calibrated", source / "bundle"):
        if (place / "manifest.json").is_file():
            return load_bundle(place, spec_hash=session.spec_hash, obs_names=session.obs_names)
    raise ConfigError(f"training.start_from = {str(source)!r} is neither a run nor a bundle")


def _data_of(source: Path | None) -> str | None:
    """Return the data set that the run ``source`` learned from, if it is one of those; else what it collected."""
    if source is None or not (source / "config.yaml").is_file():
        return None
    data = load_config(SessionConfig, source / "config.yaml").data
    if data is not None:
        check_content(data)
        return data.path
    collected = source / "transitions.npz"
    return str(collected) if collected.is_file() else None

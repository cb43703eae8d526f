"""A training session over ROS 2: the learner here, the safety filter and the twin in processes of their own."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from safe_rl_ros.algorithms.base import Algorithm
from safe_rl_ros.bundle import Bundle, load_bundle
from safe_rl_ros.config import dump_yaml
from safe_rl_ros.envs.robot_env import make_robot_env
from safe_rl_ros.ros.filter_parameters import parameters_of
from safe_rl_ros.ros.robot_backend import RosBackend
from safe_rl_ros.ros.supervisor import Supervisor, ros_arguments, ros_variables
from safe_rl_ros.training.session import RobotSession, filter_bundle, write_bundle, write_recovery
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.types import ConfigError

logger = logging.getLogger(__name__)
KEPT_BUNDLES = 3
EXECUTOR = "events"


def _domain_id(config: SessionConfig) -> int | None:
    """Return the configured domain, else the environment's, else None (a free one)."""
    if config.ros.domain_id is not None:
        return config.ros.domain_id
    text = os.environ.get("ROS_DOMAIN_ID")
    if text is None:
        return None
    if not text.isdecimal():
        raise ConfigError(f"environment variable ROS_DOMAIN_ID = {text!r}, expected 0 to 232")
    return int(text)


def make_supervisor(config: SessionConfig, directory: Path) -> Supervisor:
    """Return what starts and ends the session's processes; this process looks for them where they are.

    Raises:
        ConfigError: the task is simulated and has no robot.
    """
    config.require_ros()
    supervisor = Supervisor(_domain_id(config), directory / "log")
    os.environ.update(ros_variables(supervisor.domain_id))
    return supervisor


def files_of(directory: Path) -> dict[str, str]:
    """Return the node parameters that every process of a run's session has."""
    return {"robot": str(directory / "robot.yaml"), "task": str(directory / "task.yaml"), "executor": EXECUTOR}


def start_robot(supervisor: Supervisor, config: SessionConfig, directory: Path) -> None:
    """Start the twin, randomised as the session says, and the filter.

    Raises:
        BackendError: a process died or did not appear in time.
    """
    common = {**files_of(directory), "timing": config.ros.timing}
    twin = {**common, "simulator": config.simulator or "spec"}
    if config.randomisation is not None:  # the session's own, which an evaluation may have changed
        twin["randomisation"] = str(directory / "log" / "randomisation.yaml")
        Path(twin["randomisation"]).write_text(dump_yaml(config.randomisation), encoding="utf-8")
    supervisor.start("twin", "safe_rl_ros.ros.twin_node", ros_arguments(twin))
    of_filter = {"autostart": True, "follow_resets": True, **parameters_of(config.filter)}
    arguments = ros_arguments({**common, **of_filter})
    supervisor.start("safety_filter", "safe_rl_ros.ros.safety_filter_node", arguments)


class ExternalSession(RobotSession):
    """A session on nodes that somebody else (a launch file) has started."""

    def __init__(
        self,
        config: SessionConfig,
        directory: Path,
        *,
        domain_id: int | None = None,
        namespace: str = "",
        hardware: bool = False,
        check: Callable[[], None] | None = None,
    ) -> None:
        """Connect and wait until the filter is armed.

        Args:
            config: the session.
            directory: the run's directory; bundles for the filter go to ``bundles``.
            domain_id: ROS domain, by default the environment's.
            namespace: ROS namespace of the nodes.
            hardware: True if there is no twin to reset; episodes begin where the robot stands.
            check: called while waiting, may raise.

        Raises:
            BackendError: filter or robot did not appear in time; the message lists what is missing.
            ConfigError: the task is simulated and has no robot.
        """
        config.require_ros()
        self.config, self.directory = config, directory
        spec = config.robot_spec
        self._backend = RosBackend(
            spec,
            timing=config.ros.timing,
            domain_id=domain_id,
            namespace=namespace,
            executor=EXECUTOR,
            step_timeout_s=config.ros.step_timeout_s,
            startup_timeout_s=config.ros.startup_timeout_s,
            twin_name=None if hardware else "twin",
        )
        try:
            self._backend.wait_ready(check)
            super().__init__(make_robot_env(spec, config.robot_task, backend=self._backend), spec, directory)
        except BaseException:
            self._backend.close()
            raise

    def deploy(self, algorithm: Algorithm, epoch: int) -> None:
        """Write the networks as a bundle, announce it, and wait until the filter uses it.

        Its policy is what takes the place of a vetoed proposal: the recovery policy where there is one.

        Raises:
            BundleError: the filter refused it.
            BackendError: the filter did not answer.
        """
        if algorithm.critic() is None:
            return
        bundles = self.directory / "bundles"
        path = bundles / f"epoch_{epoch:05d}"
        networks = (path, algorithm, self.config, self)
        digest = write_recovery(*networks) or write_bundle(*networks)
        self._backend.announce_bundle(path, digest, self.config.ros.startup_timeout_s)
        for old in sorted(bundles.glob("epoch_*"))[:-KEPT_BUNDLES]:
            shutil.rmtree(old)

    def deploy_bundle(self, path: Path) -> Bundle:
        """Announce a bundle on disk, or the one of the recovery policy beside it; wait until the filter uses it."""
        bundle = load_bundle(path, spec_hash=self.spec_hash, obs_names=self.obs_names)
        if bundle.critic is not None:
            acting, digest = filter_bundle(path, self.config), bundle.hash
            if acting != path:
                digest = load_bundle(acting, spec_hash=self.spec_hash, obs_names=self.obs_names).hash
            self._backend.announce_bundle(acting, digest, self.config.ros.startup_timeout_s)
        self._policy = bundle.policy
        return bundle

    def close(self) -> None:
        """Stop the robot and disconnect. Idempotent."""
        self._backend.close()


class RosSession(ExternalSession):
    """Starts twin and filter, connects to them, and ends them: the ``ros`` backend of ``safe-rl-ros train``."""

    def __init__(self, config: SessionConfig, directory: Path) -> None:
        """Start the processes and wait until the filter is armed; their logs go to ``directory/log``.

        Raises:
            BackendError: a process died or did not appear in time; nothing is left running.
            ConfigError: the task is simulated and has no robot.
        """
        self._supervisor = make_supervisor(config, directory)
        try:
            start_robot(self._supervisor, config, directory)
            super().__init__(config, directory, domain_id=self._supervisor.domain_id, check=self._supervisor.check)
        except BaseException:
            self._supervisor.stop()
            raise
        logger.info("ROS session on domain %d, logs in %s", self._supervisor.domain_id, directory / "log")

    def deploy(self, algorithm: Algorithm, epoch: int) -> None:
        """As :meth:`ExternalSession.deploy`, and a process that has died is named at once, with its log."""
        self._supervisor.check()
        super().deploy(algorithm, epoch)

    def close(self) -> None:
        """Stop the robot and end every process. Idempotent."""
        super().close()
        self._supervisor.stop()

"""The learner as a ROS 2 executable, for launch files: trains on nodes that are already running."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safe_rl_ros.ros import qos
from safe_rl_ros.ros.actor_session import ActorSession
from safe_rl_ros.ros.child import die_with_parent, notify_ready
from safe_rl_ros.ros.parameters import NodeParameter
from safe_rl_ros.ros.session import ExternalSession
from safe_rl_ros.ros.start_parameters import read_parameters
from safe_rl_ros.training.rollout import StopRequestedError
from safe_rl_ros.training.run import StopFlag, prepare_directory, train
from safe_rl_ros.training.session import Session
from safe_rl_ros.training.session_config import SessionConfig, load_session_config
from safe_rl_ros.training.trainer import Progress
from safe_rl_ros.types import SafeRlRosError

PARAMETERS = (
    NodeParameter("config", "csc_hazard_nav.yaml", "Session YAML: a file, or a name in config/train."),
    NodeParameter("timing", "lockstep", "As the other nodes: lockstep or realtime.", choices=qos.TIMINGS),
    NodeParameter(
        "acting",
        "learner",
        "learner: this process acts between its updates; actor: actor_node does, always, and this one only learns.",
        choices=("learner", "actor"),
    ),
    NodeParameter(
        "robot_kind",
        "twin",
        "twin: episodes begin by its reset service; hardware: where the robot stands.",
        choices=("twin", "hardware"),
    ),
    NodeParameter("runs", "runs", "Directory that holds the runs."),
    NodeParameter("resume", False, "Go on from the run's newest checkpoint."),
)

logger = logging.getLogger(__name__)


def log_progress(progress: Progress) -> None:
    """Log one line per epoch: a launch file's output is no terminal for a progress bar."""
    row = progress.row
    logger.info(
        "epoch %d/%d: return %.2f, failures %d (%d in all), veto rate %.1f %%, %.0f steps/s",
        progress.epoch,
        progress.epochs,
        row["return_mean"],
        row["failures"],
        row["failures_total"],
        100 * row["veto_rate"],
        row["steps_per_s"],
    )


def run_session(values: dict[str, Any], namespace: str, flag: StopFlag) -> int:
    """Train as the parameters say; return the exit status."""
    changes = [f"ros.{key}={values[key]}" for key in ("timing", "acting")]
    config = load_session_config(values["config"], changes)
    directory = prepare_directory(config, Path(values["runs"]), resume=values["resume"])

    def connect(config: SessionConfig, directory: Path) -> Session:
        if config.ros.acting == "actor":
            return ActorSession(config, directory, namespace=namespace, check=flag.check)
        hardware = values["robot_kind"] == "hardware"
        # Ctrl-C on a launch ends the other nodes too: without the check every wait for them would run to its end.
        return ExternalSession(config, directory, namespace=namespace, hardware=hardware, check=flag.check)

    train(config, directory, connect, flag=flag, on_epoch=log_progress)
    logger.info("results: %s", directory)
    return 0  # also after Ctrl-C: a node that was told to end and saved has not failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until the session ends or SIGINT; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    die_with_parent()
    with StopFlag().on_signals() as flag:
        try:
            values, namespace = read_parameters("learner", PARAMETERS, argv if argv is not None else sys.argv)
            notify_ready()
            return run_session(values, namespace, flag)
        except StopRequestedError:
            logger.info("stopped before the first epoch")
            return 0
        except SafeRlRosError as error:
            logger.error("%s", error)
            return 2


if __name__ == "__main__":
    sys.exit(main())

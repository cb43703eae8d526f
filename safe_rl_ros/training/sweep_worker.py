"""One run of a sweep in a process of its own: ``python -m safe_rl_ros.training.sweep_worker DIRECTORY``.

The directory holds the resolved configuration. Events go to standard output, one JSON object a line: ``epoch`` after
each epoch, and at the end ``finished`` or ``error``. When standard input ends (the sweep wants the run to stop, or is
gone) the step in progress ends and the state is saved. Logs and tracebacks go to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

from safe_rl_ros.config import load_config
from safe_rl_ros.training.run import StopFlag, train
from safe_rl_ros.training.session_config import SessionConfig
from safe_rl_ros.training.trainer import Progress

logger = logging.getLogger(__name__)


class Reporter:
    """Sends events to the sweep; if nobody listens any more, the run stops."""

    def __init__(self, descriptor: int, flag: StopFlag) -> None:
        """Write to ``descriptor`` (owned from now on)."""
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._flag = flag

    def send(self, **event: Any) -> None:
        """Send one event."""
        try:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()
        except BrokenPipeError:
            self._flag.request()

    def epoch(self, progress: Progress) -> None:
        """Report an epoch."""
        self.send(epoch=progress.epoch, epochs=progress.epochs, row=progress.row)


def _stop_at_end_of_input(flag: StopFlag) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        continue
    flag.request()


def main() -> int:
    """Train in the directory that the command line names; return 0, or 1 after an error."""
    # A library that prints must not garble the events: what it prints goes to the log.
    events = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    flag = StopFlag()
    reporter = Reporter(events, flag)
    threading.Thread(target=_stop_at_end_of_input, args=(flag,), daemon=True).start()
    directory = Path(sys.argv[1])
    try:
        with flag.on_signals():
            config = load_config(SessionConfig, directory / "config.yaml")
            summary = train(config, directory, flag=flag, on_epoch=reporter.epoch)
    except Exception as error:
        logger.exception("the run failed")
        reporter.send(error=f"{type(error).__name__}: {error}")
        return 1
    reporter.send(finished=summary["finished"])
    return 0


if __name__ == "__main__":
    sys.exit(main())

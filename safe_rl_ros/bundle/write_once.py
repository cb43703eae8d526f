"""Bundles that others are told of by path and hash: never changed once they are there.

A learner that was killed and goes on from a checkpoint has networks that it deployed before. Whoever took them then may
come back to them, and knows them by the hash of a manifest that has its date in it.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safe_rl_ros.bundle.identity import networks_id
from safe_rl_ros.bundle.model import Bundle
from safe_rl_ros.types import BundleError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placed:
    """A bundle that may be told of; ``found``: it was there already, and others may have heard of it before."""

    path: Path
    bundle: Bundle
    found: bool


def write_once(
    target: Path, write: Callable[[Path], object], load: Callable[[Path], Bundle], *, again: bool = False
) -> Placed:
    """Return the newest bundle of this name with the networks that ``write`` writes; write it if there is none.

    What is there under the name is left as it is: the second bundle of ``epoch_00007`` is ``epoch_00007_02``.

    Args:
        target: the first bundle of the name.
        write: writes a bundle into a directory that is not there yet. Raises BundleError.
        load: loads and verifies a bundle. Raises BundleError; then the one that is there counts as none.
        again: write it anew even if there is one.
    """
    older = _written(target)
    number = max(older, default=0) + 1
    path = target if number == 1 else target.with_name(f"{target.name}_{number:02d}")
    write(path)
    bundle = load(path)
    for other in [] if again else [older[key] for key in sorted(older, reverse=True)]:
        try:
            found = load(other)
        except BundleError as error:
            logger.warning("left as it is, and not used again: %s", error)
            continue
        if networks_id(found.manifest) == networks_id(bundle.manifest):
            shutil.rmtree(path)  # nobody has heard of it
            return Placed(other, found, found=True)
    return Placed(path, bundle, found=False)


def _written(target: Path) -> dict[int, Path]:
    """Return what is there under a name, by its number."""
    if not target.parent.is_dir():
        return {}
    pattern = re.compile(re.escape(target.name) + r"(?:_(\d{2,}))?")
    matches = [match for name in os.listdir(target.parent) if (match := pattern.fullmatch(name))]
    return {int(match[1] or 1): target.with_name(match[0]) for match in matches}

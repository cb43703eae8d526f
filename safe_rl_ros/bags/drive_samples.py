"""Measurements of drives in rows and blocks: what is fitted, what is held out, what goes together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safe_rl_ros.bags.base_model import WARM_UP_S, shown
from safe_rl_ros.bags.drive_log import Drive
from safe_rl_ros.bags.fitting import Blocks
from safe_rl_ros.bags.message_types import BagError
from safe_rl_ros.types import FloatArray

BLOCK_S = 2.0
"""Drives are cut into blocks of this length: every fourth is held out; errors within one are taken to go together."""
HELD_OUT_EVERY = 4


class Samples:
    """All drives' measurements in rows: ``motion`` (N, 2), ``block`` (N,), and which rows are ``fitted`` (N,)."""

    def __init__(self, drives: Sequence[Drive]) -> None:
        """Cut the drives into blocks; the beginning of one that does not begin at rest is left out.

        Raises:
            BagError: too little is left.
        """
        self.drives = drives
        self._used = [drive.motion_s >= (0.0 if drive.from_rest else WARM_UP_S) for drive in drives]
        blocks: list[Blocks] = []
        count = 0
        for drive, used in zip(drives, self._used, strict=True):
            own = np.floor(drive.motion_s[used] / BLOCK_S).astype(np.int64)
            blocks.append(own + count)
            count += int(own.max(initial=-1)) + 1
        self.block: Blocks = np.concatenate(blocks)
        self.motion = np.concatenate([drive.motion[used] for drive, used in zip(drives, self._used, strict=True)])
        self.fitted = self.block % HELD_OUT_EVERY != HELD_OUT_EVERY - 1
        if count < HELD_OUT_EVERY or self.fitted.all():
            raise BagError(f"the drives make {count} blocks of {BLOCK_S:g} s, expected at least {HELD_OUT_EVERY}")

    def rows(self, motions: Sequence[FloatArray], substep_s: float, delay_s: float) -> FloatArray:
        """Return motions of the twin as they would have been measured, (N, 2)."""
        times = [drive.motion_s[used] for drive, used in zip(self.drives, self._used, strict=True)]
        return np.concatenate(
            [shown(motion, substep_s, delay_s, its) for motion, its in zip(motions, times, strict=True)]
        )

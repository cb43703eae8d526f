"""Load and verify announced bundles beside the control loop. No ROS in here but the name of its topic."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from safe_rl_ros.bundle import Bundle, load_bundle, preload
from safe_rl_ros.safety.action_filter import FilterConfig
from safe_rl_ros.types import BundleError

TOPIC = "bundle"
MAX_ANNOUNCEMENT_CHARS = 4096
WARM_UP_RUNS = 5
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Announcement:
    """Where a bundle is and which hash it must have (None: any, for a path given as a parameter)."""

    path: str
    sha256: str | None


@dataclass(frozen=True)
class Refusal:
    """Why an announced bundle was not taken."""

    announcement: Announcement
    reason: str


def format_announcement(announcement: Announcement) -> str:
    """Return the text that goes over the ``bundle`` topic."""
    return json.dumps({"path": announcement.path, "sha256": announcement.sha256})


def parse_announcement(text: str) -> Announcement:
    """Return what was announced.

    Raises:
        BundleError: not ``{"path": absolute path, "sha256": 64 hexadecimal digits}``, or too long.
    """
    if len(text) > MAX_ANNOUNCEMENT_CHARS:
        raise BundleError(f"bundle announcement has {len(text)} characters, expected at most {MAX_ANNOUNCEMENT_CHARS}")
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BundleError(f"bundle announcement is not JSON: {error}") from error
    path = content.get("path") if isinstance(content, dict) else None
    sha256 = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(path, str) or not path.startswith("/"):
        raise BundleError(f"bundle announcement: path is {path!r}, expected an absolute path")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BundleError(f"bundle announcement: sha256 is {sha256!r}, expected 64 hexadecimal digits")
    return Announcement(path, sha256)


def load_and_warm_up(
    announcement: Announcement, config: FilterConfig, spec_hash: str, obs_names: Sequence[str]
) -> Bundle:
    """Load and verify a bundle, then run its networks in the sizes that decisions will need.

    Raises:
        BundleError: see :func:`~safe_rl_ros.bundle.load_bundle`; or judging the candidates of one veto, and drawing
            them where they are the policy's, takes longer than the critic's deadline even at the best of several times.
    """
    bundle = load_bundle(
        announcement.path,
        spec_hash=spec_hash,
        obs_names=obs_names,
        expected_hash=announcement.sha256,
        require_critic=config.critic != "off",
    )
    obs = np.zeros(bundle.obs_dim, dtype=np.float32)
    rng = np.random.default_rng(0)
    actions = bundle.sample(obs, config.max_samples, rng)
    if bundle.critic is not None:
        bundle.risk(obs, actions[:1])
        bundle.risk(obs, actions)
        threshold = bundle.threshold if config.threshold is None else config.threshold
        draws = config.candidates == "actor"
        best_ms = min(_time_ms(lambda: bundle.select(obs, actions, threshold)) for _ in range(WARM_UP_RUNS))
        if draws:
            best_ms += min(_time_ms(lambda: bundle.sample(obs, config.max_samples, rng)) for _ in range(WARM_UP_RUNS))
        if config.critic == "enforce" and best_ms > config.critic_deadline_ms:
            who = "policy and critic take" if draws else "the critic takes"
            raise BundleError(
                f"{announcement.path}: {who} {best_ms:.3g} ms for {config.max_samples} candidates, expected at most "
                f"critic_deadline_ms ({config.critic_deadline_ms:g})"
                + (": lower max_samples, or choose candidates:=around or topic" if draws else "")
            )
    return bundle


def _time_ms(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


class BundleLoader:
    """Runs ``load`` in one worker thread; the control loop asks with :meth:`poll`, which never waits."""

    def __init__(self, load: Callable[[Announcement], Bundle]) -> None:
        """Start no thread yet."""
        preload()  # here, not in the thread: imports hold up the control loop
        self._load = load
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bundle")
        self._future: Future[Bundle] | None = None
        self._announcement: Announcement | None = None

    @property
    def outstanding(self) -> Announcement | None:
        """What is being loaded, None if nothing is."""
        return self._announcement if self._future is not None else None

    def request(self, announcement: Announcement) -> None:
        """Load this bundle; an earlier request that has not been answered is dropped."""
        self.cancel()
        self._announcement = announcement
        self._future = self._pool.submit(self._load, announcement)

    def cancel(self) -> None:
        """Forget the outstanding request; its answer will not be given."""
        if self._future is not None:
            self._future.cancel()
            self._future = None

    def poll(self) -> Bundle | Refusal | None:
        """Return the answer to the latest request, once; None while there is none."""
        if self._future is None or self._announcement is None or not self._future.done():
            return None
        future, self._future = self._future, None
        try:
            return future.result()
        except BundleError as error:
            return Refusal(self._announcement, str(error))
        except Exception as error:  # a bundle must not be able to end the filter
            return Refusal(self._announcement, f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Drop outstanding requests."""
        self._pool.shutdown(wait=False, cancel_futures=True)

"""How Fast DDS carries what the nodes say: over UDP, never through memory that a killed process shared.

Trap: in Fast DDS's shared memory transport, the default between processes of one machine, publishing may block for
1 s per message if a reader's process was killed at a bad moment. Seen in the filter after its policy was killed: one
decision took 1 s to publish, the next command left 2 s late (docs/findings.md). UDP over loopback is as quick and waits
for nobody. With ``ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST`` rmw_fastrtps adds that transport, whatever
``FASTDDS_BUILTIN_TRANSPORTS`` says: nodes of one machine take config/middleware/fastdds_local.xml instead of it.

A profile or transport that the user chose is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from rclpy.utilities import get_rmw_implementation_identifier

from safe_rl_ros.resources import find_resource

LOCAL_PROFILE = "fastdds_local.xml"
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 (Kilted) the second."""
PROFILE_FILES = ("DEFAULT_FASTRTPS_PROFILES.xml", "DEFAULT_FASTDDS_PROFILES.xml")
"""What they read from the working directory where no variable names a file."""
RANGE, LOCALHOST_ONLY, PEERS = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS"
TRANSPORTS, UDP = "FASTDDS_BUILTIN_TRANSPORTS", "UDPv4"


def uses_fast_dds() -> bool:
    """Return whether this process speaks through Fast DDS."""
    return str(get_rmw_implementation_identifier()).startswith("rmw_fastrtps")


def has_own_choice(environment: Mapping[str, str]) -> bool:
    """Return whether the user chose a profile or transports of Fast DDS: then nothing is changed."""
    profiles = [environment.get(name, "") for name in PROFILE_VARIABLES]
    if any(profile and Path(profile).name != LOCAL_PROFILE for profile in profiles):
        return True
    if environment.get(TRANSPORTS, UDP) != UDP:
        return True
    return any(Path(name).is_file() for name in PROFILE_FILES)


def local_variables(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables under which a process's nodes hear this machine alone.

    Args:
        environment: what the process would inherit; None: this process's own.

    Raises:
        ConfigError: the package's profile is not installed.
    """
    if not uses_fast_dds() or has_own_choice(os.environ if environment is None else environment):
        return {RANGE: "LOCALHOST"}
    profile = str(find_resource(LOCAL_PROFILE, "config/middleware"))
    # SYSTEM_DEFAULT means: what the profile says, and nothing added.
    return {RANGE: "SYSTEM_DEFAULT", TRANSPORTS: UDP} | dict.fromkeys(PROFILE_VARIABLES, profile)


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keep the nodes of this process off shared memory; to be called before ``rclpy.init``. Idempotent.

    Raises:
        ConfigError: the package's profile is not installed.
    """
    if not uses_fast_dds() or has_own_choice(environment):
        return
    environment[TRANSPORTS] = UDP
    local = environment.get(RANGE) == "LOCALHOST" or environment.get(LOCALHOST_ONLY) == "1"
    if local and not environment.get(PEERS):
        environment.update(local_variables(environment))
        environment.pop(LOCALHOST_ONLY, None)  # it would win over the range

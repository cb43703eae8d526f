"""MB/s and peak memory of importing a large bag, MCAP and sqlite3, against a plain read of the same topics.

A rover with a lidar of 1080 rays at 40 Hz, odometry and joints at 50 Hz and commands at 10 Hz is driven for hours, in
messages of constant content. Three readers, each in a process of its own: ``bytes`` takes the messages with rosbags and
does nothing with them, ``messages`` deserialises each as well, ``import`` makes episodes with the margin of every scan.
Memory is the peak of the resident set, MiB. Rates are by the clock on the wall and by processor time; the targets are
about the latter, which other load on the machine disturbs less.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from benchmarks.common import finish, make_parser, progress, target
from safe_rl_ros.bags.bag_import import import_bags
from safe_rl_ros.bags.bag_topics import BagContract
from safe_rl_ros.bags.contract import ContractConfig
from safe_rl_ros.bags.message_types import serialise, type_store
from safe_rl_ros.config import build
from safe_rl_ros.data.episodes import Episode
from safe_rl_ros.envs.robot_spec import RobotSpec, load_robot_spec
from safe_rl_ros.resources import find_resource

S = 1_000_000_000
START_NS = 1_700_000_000 * S
RATES_HZ = {"/odom": 50, "/scan": 40, "/joint_states": 50, "/goal_pose": 1, "/cmd_vel": 10}
READERS = ("bytes", "messages", "import")
CHILD = "--read"


def contract() -> BagContract:
    """Return the contract of the rover with the large lidar."""
    values = {"robot": "rover", "task": "hazard_nav", "margin": [{"source": "scan"}], "max_episode_steps": 1000}
    spec = load_robot_spec("rover", ["sensors.scan.rays=1080"])
    task = find_resource("hazard_nav.yaml", "config/tasks")
    return BagContract(build(ContractConfig, values, "benchmark"), spec, task, "benchmark")


def messages(spec: RobotSpec) -> dict[str, tuple[str, bytes]]:
    """Return type and CDR form of one message of each topic, its stamp 0."""
    types = type_store().types
    header = types["std_msgs/msg/Header"](stamp=types["builtin_interfaces/msg/Time"](sec=0, nanosec=0), frame_id="odom")
    zero = types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    pose = types["geometry_msgs/msg/Pose"](
        position=types["geometry_msgs/msg/Point"](x=1.0, y=0.0, z=0.0),
        orientation=types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
    )
    twist, covariance, scan = types["geometry_msgs/msg/Twist"](zero, zero), np.zeros(36), spec.base_scan
    made: dict[str, tuple[str, Any]] = {
        "/odom": (
            "nav_msgs/msg/Odometry",
            (
                header,
                "base",
                types["geometry_msgs/msg/PoseWithCovariance"](pose, covariance),
                types["geometry_msgs/msg/TwistWithCovariance"](twist, covariance),
            ),
        ),
        "/scan": (
            "sensor_msgs/msg/LaserScan",
            (
                *(header, scan.angle_min, scan.angle_max, scan.angle_increment, 0.0, 0.025, 0.05, 3.0),
                *(np.full(scan.rays, 2.0, np.float32), np.zeros(scan.rays, np.float32)),
            ),
        ),
        "/joint_states": (
            "sensor_msgs/msg/JointState",
            (header, list(spec.joints), np.zeros(2), np.zeros(2), np.zeros(2)),
        ),
        "/goal_pose": ("geometry_msgs/msg/PoseStamped", (header, pose)),
        "/cmd_vel": ("geometry_msgs/msg/TwistStamped", (header, twist)),
    }
    return {topic: (kind, serialise(types[kind](*values), kind)) for topic, (kind, values) in made.items()}


def write_bag(path: Path, storage: StoragePlugin, size_bytes: int) -> int:
    """Write a bag of about this size; return the number of messages."""
    made, written, count, second = messages(contract().spec), 0, 0, 0
    with Writer(path, version=9, storage_plugin=storage) as writer:
        lanes = {topic: writer.add_connection(topic, kind, typestore=type_store()) for topic, (kind, _) in made.items()}
        while written < size_bytes:
            times = sorted((S * i // hz, topic) for topic, hz in RATES_HZ.items() for i in range(hz))
            for offset_ns, topic in times:
                at_ns, data = START_NS + second * S + offset_ns, made[topic][1]
                stamp = (at_ns // S).to_bytes(4, "little") + (at_ns % S).to_bytes(4, "little")
                writer.write(lanes[topic], at_ns, data[:4] + stamp + data[12:])
                written += len(data)
                count += 1
            second += 1
    return count


class Counting:
    """A sink that keeps nothing."""

    steps = 0

    def add(self, episode: Episode) -> None:
        """Count the steps."""
        self.steps += len(episode)


def read(how: str, path: Path) -> dict[str, float]:
    """Read a bag in this process; return its figures."""
    sink, agreed, store, count = Counting(), contract(), type_store(), 0
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    if how == "import":
        import_bags([path], agreed, sink)
    else:
        with Reader(path) as bag:
            for connection, _, data in bag.messages():
                count += 1
                if how == "messages":
                    store.deserialize_cdr(data, connection.msgtype)
    took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": took_s, "cpu_seconds": cpu_s, "peak_mib": peak, "steps": sink.steps, "messages": count}


def measure(storage: StoragePlugin, size_bytes: int, folder: Path) -> dict[str, Any]:
    """Write a bag and read it in every way, each in a fresh process, the bag in the page cache for all of them."""
    path = folder / storage.name.lower()
    progress(f"writing {size_bytes / 1e6:.0f} MB of {storage.name}")
    count = write_bag(path, storage, size_bytes)
    size_mb = sum(file.stat().st_size for file in path.iterdir()) / 1e6
    figures: dict[str, Any] = {"size_mb": round(size_mb, 1), "messages": count}
    for how in ("bytes", *READERS):  # the first one only warms up
        command = [sys.executable, "-m", "benchmarks.bag_import", CHILD, how, str(path)]
        result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        rate, cpu_rate = size_mb / result["seconds"], size_mb / result["cpu_seconds"]
        figures[how] = {
            "mb_per_s": round(rate, 1),
            "mb_per_cpu_s": round(cpu_rate, 1),
            "peak_mib": round(result["peak_mib"], 1),
        }
        progress(f"{storage.name} {how}: {rate:.0f} MB/s, {result['peak_mib']:.0f} MiB")
        if how == "import":
            figures["steps"] = result["steps"]
    return figures


def main() -> None:
    """Run the benchmark."""
    parser = make_parser(__doc__)
    parser.add_argument("--megabytes", type=int, default=2200, help="size of each bag")
    parser.add_argument("--folder", type=Path, help="where the bags are made; default: the temporary directory")
    args = parser.parse_args()
    size_bytes = (30 if args.quick else args.megabytes) * 1_000_000
    figures: dict[str, Any] = {}
    targets = []
    for storage in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        name = storage.name.lower()
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            figures[name] = measure(storage, size_bytes, Path(folder))
        rates = {how: figures[name][how]["mb_per_cpu_s"] for how in READERS}
        for how in ("bytes", "messages"):
            share = rates["import"] / rates[how]
            targets.append(target(f"{name}: rate of the import / plain read of {how}", round(share, 3), 0.5, ">="))
        targets.append(target(f"{name}: peak memory, MiB", figures[name]["import"]["peak_mib"], 1024.0, "<"))
    finish("bag_import", figures, targets, [0], args)


if __name__ == "__main__":
    if CHILD in sys.argv:
        sys.stdout.write(json.dumps(read(sys.argv[2], Path(sys.argv[3]))))
    else:
        main()

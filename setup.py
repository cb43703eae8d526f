"""Package metadata and installed files.

The metadata is here and not in a ``[project]`` table: colcon's extensions need setuptools < 80 and fail
on a table with ``requires-python``.
"""

import re
from collections import defaultdict
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "safe_rl_ros"
HERE = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / PACKAGE / "__init__.py").read_text(), re.MULTILINE).group(1)

# The ros-jazzy-* packages pin the Jazzy set of the wheels. Kilted's wheels have the same names as Jazzy's and no
# such set, so every one is pinned. One distribution per environment.
ROS_JAZZY = [
    "ros-jazzy-rclpy==7.1.6",
    "ros-jazzy-rmw-fastrtps-cpp==8.4.3",  # rclpy does not ask for a middleware
    "ros-jazzy-ament-index-python==1.8.1",
    *(f"ros-jazzy-{name}==5.3.6" for name in ("diagnostic-msgs", "geometry-msgs", "nav-msgs", "sensor-msgs")),
    *(f"ros-jazzy-{name}==5.3.6" for name in ("std-msgs", "std-srvs", "trajectory-msgs")),
    *(f"ros-jazzy-{name}==2.0.3" for name in ("lifecycle-msgs", "rosgraph-msgs")),
]
ROS_KILTED = [
    "ros-rclpy==9.1.2",
    "ros-rmw-fastrtps-cpp==9.3.3",
    "ros-ament-index-python==1.11.0",
    *(f"ros-{name}==5.5.1" for name in ("diagnostic-msgs", "geometry-msgs", "nav-msgs", "sensor-msgs")),
    *(f"ros-{name}==5.5.1" for name in ("std-msgs", "std-srvs", "trajectory-msgs")),
    *(f"ros-{name}==2.3.0" for name in ("lifecycle-msgs", "rosgraph-msgs")),
]


def data_files() -> list[tuple[str, list[str]]]:
    """Return what goes into the prefix: ament index marker, share/ and the node executables.

    Executables are data files because pip ignores ``install_scripts``, while ``Node(executable=...)`` looks
    in ``lib/<package>``. This works for pip, ``colcon build`` and ``colcon build --symlink-install``.
    """
    share = f"share/{PACKAGE}"
    wanted = defaultdict(list)
    wanted["share/ament_index/resource_index/packages"].append(f"resource/{PACKAGE}")
    wanted[share].append("package.xml")
    for top in ("launch", "config", "urdf"):
        for path in sorted((HERE / top).rglob("*")):
            relative = path.relative_to(HERE)
            if path.is_file() and "__pycache__" not in relative.parts:
                wanted[f"{share}/{relative.parent.as_posix()}"].append(relative.as_posix())
    wanted[f"lib/{PACKAGE}"] += [f"scripts/{path.name}" for path in sorted((HERE / "scripts").iterdir())]
    return sorted(wanted.items())


setup(
    name=PACKAGE,
    version=VERSION,
    description="Safe reinforcement learning on real robots: twins, learners and a safety filter over ROS 2",
    author="safe_rl_ros authors",
    maintainer="safe_rl_ros authors",
    license="Apache-2.0",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    package_data={PACKAGE: ["py.typed"]},
    data_files=data_files(),
    zip_safe=False,
    python_requires=">=3.10,<3.14",
    install_requires=[
        "gymnasium>=1.0",
        "h5py>=3.10",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "minari>=0.5.3",
        "mujoco>=3.3",
        "numpy>=1.26",
        "onnx>=1.16",
        "onnxruntime>=1.19",
        "protobuf>=4.25",
        "pydantic>=2.7",
        "rich>=13",
        "rosbags>=0.10.9",
        "ruamel.yaml>=0.18",
        "safetensors>=0.4.5",
        "scipy>=1.11",
        "threadpoolctl>=3.5",
        "torch>=2.4,<2.14",  # builds from 2.14 bring several GB of CUDA libraries; constraints/ pins one build
        "transforms3d>=0.4.2",
        "typer>=0.12",
    ],
    extras_require={
        "ros-jazzy": ROS_JAZZY,
        "ros-kilted": ROS_KILTED,
        "lerobot": ["pyarrow>=14"],  # export of data sets
        "pybullet": ["pybullet>=3.2.7; python_version < '3.12'"],  # no wheels from 3.12 on
        # filter_value's CBF-QP; Gymnasium's half cheetah, which ours is measured and tested against
        "benchmarks": ["qpsolvers>=4.4", "quadprog>=0.1.12", "imageio>=2.34"],
        # colcon test runs pytest only for packages whose `test` extra lists it.
        "test": [
            "hypothesis>=6.100",
            "imageio>=2.34",
            "mypy>=1.11",
            "pyarrow>=14",
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            "setuptools>=68",
        ],
    },
    entry_points={"console_scripts": ["safe-rl-ros = safe_rl_ros.cli:main"]},
)

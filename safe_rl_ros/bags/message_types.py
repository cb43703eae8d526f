"""The message definitions that bags are written and read with: those of ROS 2 Jazzy, by the rosbags library."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from safe_rl_ros.types import SafeRlRosError

FLOAT64_ARRAY = "std_msgs/msg/Float64MultiArray"
STRING = "std_msgs/msg/String"


class BagError(SafeRlRosError, RuntimeError):
    """A bag cannot be read or written, or does not hold what is needed."""


@cache
def type_store() -> Typestore:
    """Return the store of all standard message types (about 0.1 s the first time)."""
    return get_typestore(Stores.ROS2_JAZZY)


def require_type(msgtype: str) -> type[Any]:
    """Return the class of a message type, for instance ``std_msgs/msg/String``.

    Raises:
        BagError: it is not one of the standard types.
    """
    found = type_store().types.get(msgtype)
    if found is None:
        raise BagError(f"message type {msgtype!r} is unknown; standard types have names like 'std_msgs/msg/String'")
    return found


@cache
def definition(msgtype: str) -> tuple[str, str]:
    """Return the text and the hash (RIHS01) of a type's definition; some ms the first time."""
    store = type_store()
    return store.generate_msgdef(msgtype, ros_version=2)[0], store.hash_rihs01(msgtype)


def serialise(message: Any, msgtype: str) -> bytes:
    """Return the CDR form of a message made from the class of :func:`require_type`."""
    return bytes(type_store().serialize_cdr(message, msgtype))


@cache
def _decoders(msgtype: str) -> tuple[Any, Any, Any, Typestore]:
    """Return the functions that read a type, big and little endian, its class and the store."""
    store = type_store()
    definition = store.get_msgdef(msgtype)
    return definition.deserialize_cdr_be, definition.deserialize_cdr_le, definition.cls, store


def deserialise(data: bytes, msgtype: str) -> Any:
    """Return the message in CDR data; array fields are numpy arrays.

    Bytes behind the message are left alone: what ``rclpy.serialization`` gives for a JointState without velocities or
    for a JointTrajectory is some bytes longer than the message, which the library's own check would refuse.

    Raises:
        BagError: the data is not a message of this type.
    """
    try:
        if len(data) < 4 or bytes(data[:2]) not in (b"\x00\x00", b"\x00\x01"):
            raise ValueError("no CDR header")
        big, little, kind, store = _decoders(msgtype)
        return (little if data[1] else big)(data[4:], 0, kind, store)[0]
    except Exception as error:  # the library raises many kinds on foreign bytes
        raise BagError(f"{len(data)} bytes are no {msgtype}: {type(error).__name__}: {error}") from error


def float64_multi_array(label: str, values: list[float]) -> bytes:
    """Return the CDR form of a Float64MultiArray with one dimension of this label."""
    types = type_store().types
    dimension = types["std_msgs/msg/MultiArrayDimension"](label=label, size=len(values), stride=len(values))
    layout = types["std_msgs/msg/MultiArrayLayout"](dim=[dimension], data_offset=0)
    data = np.array(values, dtype=np.float64)
    return serialise(types[FLOAT64_ARRAY](layout=layout, data=data), FLOAT64_ARRAY)


def string(text: str) -> bytes:
    """Return the CDR form of a std_msgs/String."""
    return serialise(type_store().types[STRING](data=text), STRING)

"""The SROS2 policy: only the filter may publish the robot's command topic, and the manual says what the filter does."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from safe_rl_ros.envs.robot_spec import load_robot_spec
from safe_rl_ros.safety.filter_config import FilterConfig
from safe_rl_ros.safety.machine import render_markdown
from safe_rl_ros.types import FilterState, Reason

ROOT = Path(__file__).resolve().parent.parent
POLICY = ROOT / "config" / "security" / "policy.xml"
MANUAL = (ROOT / "docs" / "safety_filter.md").read_text()
CHILDREN = {"policy": {"enclaves"}, "enclaves": {"enclave"}, "enclave": {"profiles"}, "profiles": {"profile"}}
CHILDREN |= {"profile": {"topics", "services"}, "topics": {"topic"}, "services": {"service"}}
CHILDREN |= {"topic": set(), "service": set()}
KINDS = {"topics": {"publish", "subscribe"}, "services": {"reply", "request"}}


@pytest.fixture(scope="module")
def policy():
    return ElementTree.parse(POLICY).getroot()


def rights(profile, kind, verb):
    """Return the names that a profile may use in this way, its own node's spelt out."""
    found = set()
    for group in profile.findall(kind):
        if group.get(verb) == "ALLOW":
            found |= {(item.text or "").strip().replace("~/", f"{profile.get('node')}/") for item in group}
    return found


def test_policy_has_the_structure_of_sros2(policy):
    assert (policy.tag, policy.get("version")) == ("policy", "0.2.0")
    paths = [enclave.get("path") for enclave in policy.iter("enclave")]
    assert len(set(paths)) == len(paths)
    for element in policy.iter():
        assert {child.tag for child in element} <= CHILDREN[element.tag], element.tag
        if element.tag in KINDS:
            assert set(element.attrib) <= KINDS[element.tag]
            assert set(element.attrib.values()) == {"ALLOW"}
        if element.tag in ("topic", "service"):
            assert re.fullmatch(r"(~/)?[a-z][a-z0-9_/]*", (element.text or "").strip()), element.text
    for profile in policy.iter("profile"):
        assert set(profile.attrib) == {"ns", "node"}


def test_exactly_one_profile_may_publish_the_command_topic(policy):
    topic = load_robot_spec("rover").command.topic
    publishers = [p.get("node") for p in policy.iter("profile") if topic in rights(p, "topics", "publish")]
    readers = [p.get("node") for p in policy.iter("profile") if topic in rights(p, "topics", "subscribe")]
    assert publishers == ["safety_filter"]
    assert readers == ["base"]


def test_nobody_is_given_everything(policy):
    for element in policy.iter():
        assert "*" not in (element.text or "")
        assert element.get("node") != "*"


def test_only_the_operator_may_release_a_stop_and_only_the_learner_announce_bundles(policy):
    profiles = {profile.get("node"): profile for profile in policy.iter("profile")}
    for service in ("clear_estop", "rollback", "change_state", "set_parameters"):
        name = f"safety_filter/{service}"
        assert [n for n, p in profiles.items() if name in rights(p, "services", "request")] == ["operator"]
    # The actor passes on what the learner deployed to it, and nobody else deploys.
    assert [n for n, p in profiles.items() if "bundle" in rights(p, "topics", "publish")] == ["learner", "actor"]
    assert [n for n, p in profiles.items() if "actor/bundle" in rights(p, "topics", "publish")] == ["learner"]
    for name in ("actor/pause", "actor/resume"):
        assert [n for n, p in profiles.items() if name in rights(p, "services", "request")] == ["operator"]
    assert [n for n, p in profiles.items() if "takeover" in rights(p, "topics", "publish")] == ["operator"]
    assert [n for n, p in profiles.items() if "estop" in rights(p, "topics", "publish")] == ["operator"]


def test_manual_shows_the_state_machine_as_it_is():
    begin, end = "<!-- machine: rendered from safe_rl_ros/safety/machine.py -->", "<!-- /machine -->"
    assert MANUAL.split(begin)[1].split(end)[0].strip() == render_markdown().strip()


def test_manual_names_every_reason_state_and_parameter():
    missing = [name for name in (*Reason.__members__, *FilterState.__members__) if f"`{name}`" not in MANUAL]
    missing += [name for name in FilterConfig.model_fields if f"`{name}`" not in MANUAL]
    assert missing == []


@pytest.mark.ros
def test_manual_names_every_parameter_of_the_node():
    from safe_rl_ros.ros.filter_parameters import FILTER_PARAMETERS, NODE_PARAMETERS, OPERATION_PARAMETERS

    tables = (*NODE_PARAMETERS, *FILTER_PARAMETERS, *OPERATION_PARAMETERS)
    names = {item.name.removesuffix("_enabled") for item in tables}
    assert [name for name in sorted(names) if f"`{name}`" not in MANUAL] == []


@pytest.mark.ros
def test_policy_gives_the_filter_exactly_the_topics_and_services_that_it_has(policy):
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from safe_rl_ros.ros.safety_filter_node import SafetyFilterNode
    from safe_rl_ros.ros.supervisor import ros_arguments

    (profile,) = [p for p in policy.iter("profile") if p.get("node") == "safety_filter"]
    wanted = (
        rights(profile, "topics", "publish"),
        rights(profile, "topics", "subscribe") - {"parameter_events"},
        rights(profile, "services", "reply"),
    )
    rclpy.init(args=ros_arguments({"use_sim_time": True}), signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = SafetyFilterNode()
        # The node's own lists: DDS may still show a node of the same name that an earlier test destroyed.
        try:
            found = (
                {p.topic_name.lstrip("/") for p in node.publishers} | {"rosout", "safety_filter/transition_event"},
                {s.topic_name.lstrip("/") for s in node.subscriptions} - {"parameter_events"},
                {node.resolve_service_name(s.srv_name).lstrip("/") for s in node.services},
            )
        finally:
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
    assert found[0] == wanted[0]
    assert found[1] == wanted[1]
    assert found[2] == wanted[2]


@pytest.mark.ros
def test_policy_gives_the_actor_exactly_the_topics_and_services_that_it_has(policy, tmp_path):
    from safe_rl_ros.ros.actor_node import PARAMETERS, ActorNode
    from safe_rl_ros.ros.spin import StopRequest

    (profile,) = [p for p in policy.iter("profile") if p.get("node") == "actor"]
    values = {item.name: item.default for item in PARAMETERS} | {"spool": str(tmp_path), "robot_kind": "hardware"}
    actor = ActorNode(values, "", StopRequest())
    try:
        node = actor._backend.link.node
        published = {p.topic_name.lstrip("/") for p in node.publishers}
        subscribed = {s.topic_name.lstrip("/") for s in node.subscriptions}
        served = {node.resolve_service_name(s.srv_name).lstrip("/") for s in node.services}
    finally:
        actor.close()
    assert published | {"rosout"} == rights(profile, "topics", "publish")
    assert subscribed | {"clock", "parameter_events"} == rights(profile, "topics", "subscribe") | {"clock"}
    assert served == rights(profile, "services", "reply")

"""The certificate: what it must say, when it holds, and how it gets into a bundle."""

from __future__ import annotations

import numpy as np
import pytest
from bundle_helpers import BEHAVIOUR, KEYS, NORMALISER, certificate_for, edit, make_critic, make_policy, write
from pydantic import ValidationError

from safe_rl_ros.bundle import (
    certificate_problems,
    component_hashes,
    export_bundle,
    load_bundle,
    stamp_certificate,
)
from safe_rl_ros.types import BundleError

USE = {"behaviour_hash": BEHAVIOUR, "threshold": None, "control_rate_hz": 10.0}
CERTIFICATE = certificate_for(make_policy(), make_critic())


@pytest.fixture
def stamped(tmp_path):
    write(tmp_path / "plain")
    stamp_certificate(tmp_path / "plain", tmp_path / "stamped", CERTIFICATE)
    return tmp_path / "stamped"


def test_stamped_bundle_is_calibrated(tmp_path, stamped):
    bundle = load_bundle(stamped, **KEYS)
    assert bundle.manifest.certificate == CERTIFICATE
    assert (bundle.threshold, bundle.manifest.threshold_mode, bundle.calibrated) == (0.25, "calibrated", True)
    assert certificate_problems(bundle, **USE) == []
    plain = load_bundle(tmp_path / "plain", **KEYS)
    assert (plain.threshold, plain.calibrated) == (0.125, False), "the source stays as it was"
    assert bundle.manifest.extra == {"source_bundle": plain.hash}
    assert bundle.component_hashes() == plain.component_hashes()


def test_summary_names_both_bounds():
    assert CERTIFICATE.summary == "miss rate <= 0.05, failures <= 0.01 (95 %)".replace(" %", "%")


def test_certificate_survives_the_export(tmp_path, stamped):
    export_bundle(stamped, tmp_path / "onnx")
    bundle = load_bundle(tmp_path / "onnx", **KEYS)
    assert bundle.manifest.certificate == CERTIFICATE
    assert certificate_problems(bundle, **USE) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"behaviour_hash": "c" * 64}, "filter behaviour after a veto differs"),
        ({"threshold": 0.2}, "threshold is 0.2, certified is 0.25"),
        ({"threshold": float("nan")}, "threshold is nan, certified is 0.25"),
        ({"control_rate_hz": 20.0}, "control rate is 20 Hz, certified is 10 Hz"),
        ({"control_rate_hz": float("nan")}, "control rate is nan Hz, certified is 10 Hz"),
    ],
    ids=str,
)
def test_other_use_is_uncalibrated(stamped, changes, problem):
    assert certificate_problems(load_bundle(stamped, **KEYS), **(USE | changes)) == [problem]


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ("policy_sha256", "policy differs"),
        ("critic_sha256", "critic differs"),
        ("normaliser_sha256", "normaliser differs"),
        ("robot_spec_hash", "robot spec differs"),
    ],
)
def test_other_parts_are_uncalibrated_and_cannot_be_stamped(tmp_path, stamped, field, problem):
    edit(stamped, lambda content: content["certificate"].update({field: "f" * 64}))
    assert certificate_problems(load_bundle(stamped, **KEYS), **USE) == [problem]
    wrong = CERTIFICATE.model_copy(update={field: "f" * 64})
    with pytest.raises(BundleError, match=f"the certificate is for another {problem.removesuffix(' differs')}"):
        stamp_certificate(tmp_path / "plain", tmp_path / "other", wrong)
    assert not (tmp_path / "other").exists()


def test_bundle_without_certificate_is_uncalibrated(tmp_path):
    write(tmp_path / "plain")
    assert certificate_problems(load_bundle(tmp_path / "plain", **KEYS), **USE) == ["no certificate"]


@pytest.mark.parametrize("change", [{"threshold": 0.3}, {"threshold_mode": "fixed"}], ids=str)
def test_threshold_that_is_not_the_certificates_is_refused(stamped, change):
    edit(stamped, lambda content: content.update(change))
    with pytest.raises(BundleError, match=r"is not the certificate's 0.25"):
        load_bundle(stamped, **KEYS)


def test_stamp_replaces_only_when_asked(tmp_path, stamped):
    with pytest.raises(BundleError, match="exists already"):
        stamp_certificate(tmp_path / "plain", stamped, CERTIFICATE)
    again = CERTIFICATE.model_copy(update={"seed": 8})
    stamp_certificate(tmp_path / "plain", stamped, again, replace=True)
    assert load_bundle(stamped, **KEYS).manifest.certificate == again


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"miss_rate": 0.0}, "miss_rate"),
        ({"order": 11}, r"order 11 is above miss_rate \(failing_episodes \+ 1\) = 10"),
        ({"closed_loop_failures": 300}, "300 failures in 299 episodes"),
        ({"closed_loop_failures": 3}, "failure_bound 0.00997 is below the failures"),
        ({"critic_sha256": "abc"}, "critic_sha256"),
        ({"critic_sha256": None}, "critic_sha256"),
        ({"window_steps": 0}, "window_steps"),
        ({"threshold": float("nan")}, "threshold"),
        ({"surprise": 1}, "surprise"),
    ],
    ids=str,
)
def test_inconsistent_certificate_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        certificate_for(make_policy(), make_critic(), **changes)


def test_component_hashes_see_every_part_and_nothing_else():
    base = component_hashes(make_policy(), make_critic(), NORMALISER)
    assert base == component_hashes(make_policy(), make_critic(), NORMALISER)
    assert component_hashes(make_policy(seed=2), make_critic(), NORMALISER).policy != base.policy
    assert component_hashes(make_policy(), make_critic(seed=2), NORMALISER).critic != base.critic
    # The same arrays, aggregated another way, are another critic.
    assert component_hashes(make_policy(), make_critic(aggregate="mean"), NORMALISER).critic != base.critic
    assert component_hashes(make_policy(), make_critic(std_factor=2.0), NORMALISER).critic != base.critic
    other = type(NORMALISER)(NORMALISER.mean, NORMALISER.std, None)
    assert component_hashes(make_policy(), make_critic(), other).normaliser != base.normaliser
    assert component_hashes(make_policy(), None, None) == type(base)(base.policy, None, None)


def test_component_hashes_tell_shapes_and_names_apart():
    class Part:
        def __init__(self, **arrays):
            self._arrays = {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}

        def arrays(self):
            return self._arrays

        def meta(self):
            return {}

    parts = [Part(a=[1, 2], b=[3]), Part(a=[1], b=[2, 3]), Part(a=[[1, 2]], b=[3]), Part(c=[1, 2], b=[3])]
    assert len({component_hashes(part, None, None).policy for part in parts}) == len(parts)

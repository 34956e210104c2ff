"""`foedus rollout status -w`: a script learns from the exit code alone whether the rollout was taken back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.builders.charters import NOW
from tests.controlplane.cli.conftest import Foedus
from tests.controlplane.cli.hub import Hub, serving
from tests.controlplane.cli.records import RecordBuilder
from treaty import errors
from treaty.exit_codes import ExitCode, exit_code
from treaty.names import Digest, ModelRef, PartyCode
from treaty.resources.meta import Condition, ConditionStatus, ObjectMeta, new_resource, with_condition
from treaty.resources.rollouts import ROLLOUT, RolloutSpec, RolloutStatus, Wave

DIGEST = Digest("sha256:" + "ab" * 32)


@pytest.mark.parametrize(("condition", "code"), [("Aborted", ExitCode.FAILED), ("Succeeded", ExitCode.OK)])
def test_a_watched_rollout_that_was_aborted_ends_with_one(
    foedus: Foedus, tmp_path: Path, condition: str, code: ExitCode
) -> None:
    spec = RolloutSpec(ModelRef("demo@1.0.0"), DIGEST, (Wave("wave-1", (PartyCode("FR"),)),))
    made = new_resource(ROLLOUT, "demo-1", spec, status=RolloutStatus())
    made = replace(made, metadata=ObjectMeta("demo-1", creation_timestamp=NOW))
    ended = with_condition(made, Condition(condition, ConditionStatus.TRUE, "Done"), NOW)
    hub = Hub()
    hub.put(ended)
    with serving(hub, RecordBuilder().treaty, tmp_path) as flags:
        assert foedus(*flags, "rollout", "status", "demo-1", "-w").code == code
        assert foedus(*flags, "rollout", "status", "demo-1").code == ExitCode.OK


def test_what_an_identity_may_not_do_has_a_number_of_its_own() -> None:
    assert exit_code(errors.PermissionRefused("no")) == ExitCode.NOT_PERMITTED == 8
    assert exit_code(errors.PolicyDenied("no")) == ExitCode.DENIED

"""Act 3: a model version becomes Ready by 2 of 3 publishers' signatures, and by no fewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from examples.demo.cast import Cast
from examples.demo.programs import DemoFailed
from examples.demo.settings import CLASSIFICATION, LICENCE, MODEL, PUBLISHERS, REL_TO
from examples.demo.steps_charter import first_line


def publish_first_version(cast: Cast) -> None:
    """The demo's model as 1.0.0: a draft under one signature, Ready under two."""
    with cast.telling.step("3. the publisher's version 1.0.0: a draft until 2 of 3 publishers have signed"):
        folder = cast.prepared / "model"
        about = ["--licence", LICENCE, "--label", CLASSIFICATION, "--rel-to", ",".join(REL_TO)]
        publish(cast, "1.0.0", folder, *about, "--architecture", "LlamaForCausalLM")
        refused = cast.foedus_refused(
            "rollout", "create", "too-early", "--model", ref("1.0.0"), "--wave", "fr", "--fallback", "none"
        )
        cast.telling.say(f"a rollout of the draft: {first_line(refused.err)}")
        add_second_signature(cast, "1.0.0")


def ref(version: str) -> str:
    return f"{MODEL}@{version}"


def publish(cast: Cast, version: str, folder: Path | None, *words: object) -> None:
    """Publish under the first publisher's signature. Raises: DemoFailed: it is Ready with that one alone."""
    source = [folder] if folder else []
    key = cast.signing_key("publishers", PUBLISHERS[0])
    cast.foedus(
        "model", "publish", *source, "--name", MODEL, "--version", version, *words, "--key", key, role="publisher"
    )
    found = model(cast, version)
    if _is_ready(found):
        raise DemoFailed(f"{ref(version)} is Ready with one signature of two")
    cast.telling.say(f"{ref(version)}: {size_of(found) / 1e6:.1f} MB uploaded, a draft with 1 of 2 signatures")


def add_second_signature(cast: Cast, version: str) -> None:
    """Sign as the second publisher, who compares the digest, and check all signatures as a reader would."""
    digest = digest_of(model(cast, version))
    key = cast.signing_key("publishers", PUBLISHERS[1])
    cast.foedus("model", "sign", ref(version), "--key", key, "--digest", digest, role="publisher")
    if not _is_ready(model(cast, version)):
        raise DemoFailed(f"{ref(version)} is not Ready with two signatures")
    cast.foedus("model", "verify", ref(version))
    cast.telling.say(f"{ref(version)} is Ready: {digest}")


def model(cast: Cast, version: str) -> dict[str, Any]:
    return cast.resource("modelversions", f"{MODEL}-{version}")


def digest_of(resource: dict[str, Any]) -> str:
    return str(resource["spec"]["manifestDigest"])


def size_of(resource: dict[str, Any]) -> int:
    return int(resource["status"]["bytes"])


def _is_ready(resource: dict[str, Any]) -> bool:
    return condition(resource, "Ready")["status"] == "True"


def condition(resource: dict[str, Any], kind: str) -> dict[str, str]:
    """The condition of that type; one that says Unknown where there is none."""
    found = [each for each in resource["status"].get("conditions", []) if each["type"] == kind]
    return found[0] if found else {"type": kind, "status": "Unknown", "reason": "", "message": ""}

"""Flower's strategies behind validated replies: the right arithmetic, and the same after a restart bit for bit."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from controlplane.federation import compat
from controlplane.federation.aggregate import aggregate
from controlplane.federation.exact_sum import ExactSum, apply, mean_delta
from controlplane.federation.grid import Exchange, Instruction, Kind, Reply, TreatyGrid
from controlplane.federation.strategies import (
    OwnDelta,
    StrategyState,
    evaluate_round,
    step,
    train_round,
)
from controlplane.federation.strategy_spec import StrategyName, strategy_spec
from controlplane.federation.strategy_state import load_state, save_state
from tests.controlplane.test_aggregate import NATIONS, SPEC, a_delta, five
from treaty.errors import Corrupt, InvalidInput, NotFound, PreconditionFailed
from treaty.names import Digest, RunId

Arrays = dict[str, NDArray[np.float32]]
MEAN = [StrategyName(name) for name in ("FedAvg", "FedProx", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi")]
ROBUST = [name for name in StrategyName if name not in MEAN]
ADAPTIVE = [name for name in MEAN if name not in ("FedAvg", "FedProx")]
NONE = StrategyState()


@pytest.fixture(autouse=True, scope="module")
def identity() -> None:
    compat.adopt_identity(SPEC.run_id)


def a_base(scale: float = 1.0) -> Arrays:
    random = np.random.default_rng(99)
    return {t.name: (random.standard_normal(t.shape) * scale).astype(np.float32) for t in SPEC.tensors}


def own(count: int, *, examples: int = 1) -> list[OwnDelta]:
    codes = ("BE", "DE", "ES", "FR", "GR", "IT", "JP", "KR", "NL", "PT", "SE")
    return [OwnDelta(codes[seed], examples, a_delta(seed)) for seed in range(count)]


def sums(folder: Path, rounds: int = 1) -> list[ExactSum]:
    made = []
    for number in range(rounds):
        (folder / str(number)).mkdir()
        paths = five(folder / str(number))
        made.append(aggregate(paths[: 5 - number], SPEC, folder / str(number) / "sum"))
    return made


def always(replies: list[Reply]) -> Exchange:
    return lambda _instruction: replies


def same(left: Arrays, right: Arrays) -> bool:
    return left.keys() == right.keys() and all(left[name].tobytes() == right[name].tobytes() for name in left)


@pytest.mark.parametrize("name", ["FedAvg", "FedProx"])
def test_fedavg_on_the_exact_mean_is_the_plain_weighted_mean(tmp_path: Path, name: str) -> None:
    (exact,) = sums(tmp_path)
    result = step(strategy_spec(name, {}), NONE, round_number=1, base=a_base(), came=exact)
    for tensor in SPEC.tensors:
        plain = sum((seed + 1) / 15 * (a_base()[tensor.name] + a_delta(seed)[tensor.name]) for seed in range(5))
        assert np.abs(result.arrays[tensor.name] - plain).max() <= 1e-6
    assert same(result.arrays, apply(a_base(), mean_delta(exact)))
    assert result.state.attributes == {}


@pytest.mark.parametrize("name", MEAN)
def test_the_mean_family_equals_flower_fed_with_every_reply(tmp_path: Path, name: StrategyName) -> None:
    spec = strategy_spec(name, {})
    (exact,) = sums(tmp_path)
    replies = [Reply(nation, seed + 1, apply(a_base(), a_delta(seed))) for seed, nation in enumerate(NATIONS)]
    plain = train_round(spec, NONE, round_number=1, base=a_base(), cohort=NATIONS, exchange=lambda _: replies)
    ours = step(spec, NONE, round_number=1, base=a_base(), came=exact)
    assert all(np.abs(ours.arrays[key] - plain.arrays[key]).max() <= 2e-5 for key in plain.arrays)


@pytest.mark.parametrize("name", MEAN)
def test_a_run_interrupted_after_each_round_ends_bit_for_bit_as_one_that_was_not(
    tmp_path: Path, name: StrategyName
) -> None:
    spec = strategy_spec(name, {})
    rounds = sums(tmp_path, rounds=3)
    arrays, state = a_base(), NONE
    resumed, path = a_base(), tmp_path / "state.npz"
    digest = save_state(NONE, path)
    for number, exact in enumerate(rounds, 1):
        made = step(spec, state, round_number=number, base=arrays, came=exact)
        arrays, state = made.arrays, made.state
        again = step(spec, load_state(path, digest), round_number=number, base=resumed, came=exact)
        resumed, digest = again.arrays, save_state(again.state, path)
    assert same(arrays, resumed)
    assert bool(state.attributes) == (name in ADAPTIVE)
    assert save_state(state, tmp_path / "other.npz") == digest


@pytest.mark.parametrize("name", MEAN)
def test_our_steps_equal_one_flower_strategy_that_lives_through_all_rounds(tmp_path: Path, name: StrategyName) -> None:
    spec = strategy_spec(name, {})
    living = compat.FLOWER_STRATEGIES[name](
        min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=1, **spec.flower_keywords()
    )
    arrays, state = a_base(), NONE
    record = compat.ArrayRecord({key: compat.Array(value) for key, value in arrays.items()})
    for number, exact in enumerate(sums(tmp_path, rounds=3), 1):
        moved = apply(arrays, mean_delta(exact))
        reply = Reply("mean", exact.total_weight, moved)
        grid = TreatyGrid(["mean"], SPEC.tensors, always([reply]))
        messages = living.configure_train(number, record, compat.ConfigRecord(), grid)
        record, _ = living.aggregate_train(number, grid.send_and_receive(messages))
        made = step(spec, state, round_number=number, base=arrays, came=exact)
        arrays, state = made.arrays, made.state
        # A living strategy keeps float64 between rounds where ours rounds the published arrays to float32.
        assert all(np.abs(record[key].numpy() - arrays[key]).max() <= 1e-5 for key in arrays)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_forgetting_the_optimisers_state_would_change_the_result(tmp_path: Path, name: StrategyName) -> None:
    spec = strategy_spec(name, {})
    first, second = sums(tmp_path, rounds=2)
    made = step(spec, NONE, round_number=1, base=a_base(), came=first)
    kept = step(spec, made.state, round_number=2, base=made.arrays, came=second)
    lost = step(spec, NONE, round_number=2, base=made.arrays, came=second)
    assert not same(kept.arrays, lost.arrays)


@pytest.mark.parametrize("name", ROBUST)
def test_the_robust_family_does_not_depend_on_the_order_and_resists_one_that_lies(name: StrategyName) -> None:
    spec = strategy_spec(name, {})
    updates = own(7)
    liar = {key: np.full_like(value, 0.18) for key, value in updates[0].delta.items()}
    updates[0] = OwnDelta("BE", 1, liar)
    result = step(spec, NONE, round_number=1, base=a_base(), came=updates)
    assert same(result.arrays, step(spec, NONE, round_number=1, base=a_base(), came=updates[::-1]).arrays)
    for key, base in a_base().items():
        honest = np.stack([update.delta[key] for update in updates[1:]])
        moved = result.arrays[key] - base
        assert (moved >= honest.min(axis=0) - 1e-6).all()
        assert (moved <= honest.max(axis=0) + 1e-6).all()


def test_the_median_is_the_median_of_the_deltas_on_the_base() -> None:
    result = step(strategy_spec("FedMedian", {}), NONE, round_number=1, base=a_base(), came=own(5))
    for key, base in a_base().items():
        median = np.median(np.stack([update.delta[key] for update in own(5)]), axis=0)
        assert np.array_equal(result.arrays[key], base + median)


def test_krum_picks_the_same_update_however_long_the_base_is() -> None:
    spec = strategy_spec("Krum", {})
    small = step(spec, NONE, round_number=1, base=a_base(), came=own(5))
    large = step(spec, NONE, round_number=1, base=a_base(scale=10_000), came=own(5))
    picked = [u.nation for u in own(5) if same(small.arrays, apply(a_base(), u.delta))]
    assert len(picked) == 1
    assert [u.nation for u in own(5) if same(large.arrays, apply(a_base(scale=10_000), u.delta))] == picked


@pytest.mark.parametrize("name", ROBUST)
def test_a_robust_step_with_too_few_updates_is_refused(name: StrategyName) -> None:
    with pytest.raises(PreconditionFailed, match="updates, 2 came"):
        step(strategy_spec(name, {}), NONE, round_number=1, base=a_base(), came=own(2))


def test_each_family_refuses_the_others_input(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Krum needs every update"):
        step(strategy_spec("Krum", {}), NONE, round_number=1, base=a_base(), came=sums(tmp_path)[0])
    with pytest.raises(InvalidInput, match="FedAvg needs the exact sum"):
        step(strategy_spec("FedAvg", {}), NONE, round_number=1, base=a_base(), came=own(5))
    with pytest.raises(PreconditionFailed, match="needs a cohort"):
        step(strategy_spec("Krum", {}), NONE, round_number=1, base=a_base(), came=[])


def poisoned(change: str) -> OwnDelta:
    delta = dict(a_delta(0))
    name = SPEC.tensors[0].name
    match change:
        case "nan":
            delta[name] = np.full_like(delta[name], np.nan)
        case "inf":
            delta[name] = np.full_like(delta[name], np.inf)
        case "shape":
            delta[name] = delta[name][:1]
        case "dtype":
            delta[name] = delta[name].astype(np.float64)
        case "missing":
            del delta[name]
        case "extra":
            delta["note"] = np.zeros(3, np.float32)
    return OwnDelta("BE", 10**12 if change == "weight" else 0 if change == "weightless" else 1, delta)


@pytest.mark.parametrize("change", ["nan", "inf", "shape", "dtype", "missing", "extra", "weightless"])
@pytest.mark.parametrize("name", ROBUST)
def test_one_bad_reply_reaches_no_strategy(name: StrategyName, change: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        step(strategy_spec(name, {}), NONE, round_number=1, base=a_base(), came=[*own(7)[1:], poisoned(change)])
    assert caught.value.code in ("UPD-005", "UPD-011", "UPD-012")


def test_a_reply_twice_or_from_a_stranger_or_with_foreign_metrics_is_refused() -> None:
    spec, good = strategy_spec("FedMedian", {}), [Reply(u.nation, 1, u.delta) for u in own(3)]
    cohort = ["BE", "DE", "ES"]
    bad = {
        "replied twice": [*good, good[0]],
        "not asked": [*good, Reply("FR", 1, a_delta(1))],
        "integers of their own names": [*good[1:], Reply("BE", 1, a_delta(0), {"loss": 0.5})],  # type: ignore[dict-item]
        "positive integer": [*good[1:], Reply("BE", True, a_delta(0))],
    }
    for message, replies in bad.items():
        with pytest.raises(InvalidInput, match=message):
            train_round(spec, NONE, round_number=1, base=a_base(), cohort=cohort, exchange=always(replies))


def test_the_exchange_is_told_round_kind_cohort_and_what_the_strategy_asks() -> None:
    seen: list[Instruction] = []

    def exchange(instruction: Instruction) -> list[Reply]:
        seen.append(instruction)
        return [Reply(sender, 1, a_base()) for sender in instruction.cohort]

    spec = strategy_spec("FedProx", {"proximal_mu_micro": 250_000})
    train_round(spec, NONE, round_number=3, base=a_base(), cohort=["KR", "FR"], exchange=exchange)
    assert seen == [Instruction(3, Kind.TRAIN, ("FR", "KR"), {"proximal-mu": 0.25})]


def test_an_evaluation_is_the_weighted_mean_of_integer_metrics_and_has_no_arrays() -> None:
    spec = strategy_spec("FedAvg", {})
    replies = [Reply("FR", 1, metrics={"loss_micro": 10}), Reply("KR", 3, metrics={"loss_micro": 30})]
    mean = evaluate_round(spec, round_number=1, base=a_base(), cohort=["FR", "KR"], exchange=lambda _: replies)
    assert mean == {"loss_micro": 25.0}
    uneven = [replies[0], Reply("KR", 3, metrics={"sentence": 30})]
    with pytest.raises(PreconditionFailed, match="could not be averaged"):
        evaluate_round(spec, round_number=1, base=a_base(), cohort=["FR", "KR"], exchange=lambda _: uneven)
    with pytest.raises(PreconditionFailed, match="nobody replied"):
        evaluate_round(spec, round_number=1, base=a_base(), cohort=["FR"], exchange=lambda _: [])
    with pytest.raises(InvalidInput, match="reply has arrays"):
        evaluate_round(
            spec, round_number=1, base=a_base(), cohort=["FR"], exchange=lambda _: [Reply("FR", 1, a_base())]
        )


def test_a_step_that_leaves_float32_is_refused_and_says_what_to_lower(tmp_path: Path) -> None:
    spec = strategy_spec("FedAvgM", {"server_learning_rate_micro": 10_000_000})
    state = StrategyState({"momentum_vector": {k: np.full_like(v, 3e38) for k, v in a_base().items()}})
    with pytest.raises(PreconditionFailed, match="left the finite float32 values") as caught:
        step(spec, state, round_number=2, base=a_base(), came=sums(tmp_path)[0])
    assert "learning rate" in caught.value.remedy


def test_a_saved_state_is_believed_by_its_digest_and_only_by_its_own_strategy(tmp_path: Path) -> None:
    (exact,) = sums(tmp_path)
    made = step(strategy_spec("FedAdam", {}), NONE, round_number=1, base=a_base(), came=exact)
    path = tmp_path / "state.npz"
    digest = save_state(made.state, path)
    loaded = load_state(path, digest)
    assert sorted(loaded.attributes) == ["m_t", "v_t"]
    with pytest.raises(InvalidInput, match="not one of FedAvgM"):
        step(strategy_spec("FedAvgM", {}), loaded, round_number=2, base=made.arrays, came=exact)
    with pytest.raises(Corrupt, match="not the one recorded"):
        load_state(path, Digest("sha256:" + "00" * 32))
    with pytest.raises(NotFound, match=r"no strategy state gone\.npz"):
        load_state(tmp_path / "gone.npz", digest)
    assert sorted(file.name for file in tmp_path.glob("state*")) == ["state.npz"]


def test_a_pickle_in_place_of_the_state_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "state.npz"
    with path.open("wb") as file:
        np.savez(file, np.array([{"code": 1}], dtype=object), allow_pickle=True)
    digest = Digest("sha256:" + hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(Corrupt, match="cannot be read"):
        load_state(path, digest)


def test_a_worker_serves_one_run_only() -> None:
    compat.adopt_identity(SPEC.run_id)
    with pytest.raises(PreconditionFailed, match="worker of another run"):
        compat.adopt_identity(RunId("another"))


def test_a_process_that_is_no_runs_worker_steps_nothing_and_tells_nobody() -> None:
    program = """
import os, sys, warnings
warnings.simplefilter("ignore")
import numpy
from controlplane.federation.strategies import StrategyState, evaluate_round
from controlplane.federation.strategy_spec import strategy_spec
from treaty.errors import PreconditionFailed
assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
assert "torch" not in sys.modules
base = {"a": numpy.zeros(1, numpy.float32)}
try:
    evaluate_round(strategy_spec("FedAvg", {}), round_number=1, base=base, cohort=["FR"], exchange=lambda _: [])
except PreconditionFailed as err:
    print(err)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "this process is no run's worker; call adopt_identity first\n"
    assert done.stderr == ""


def test_planning_and_summing_need_no_flower() -> None:
    program = (
        "import sys, controlplane.federation.aggregate, controlplane.federation.strategy_spec, treaty.update;"
        "assert 'flwr' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_grid_exchanges_whole_rounds_only() -> None:
    grid = TreatyGrid(["FR"], SPEC.tensors, lambda _: [])
    with pytest.raises(PreconditionFailed, match="whole rounds"):
        grid.push_messages([])
    with pytest.raises(PreconditionFailed, match="whole rounds"):
        grid.pull_messages([])
    assert grid.send_and_receive([]) == []
    with pytest.raises(PreconditionFailed, match="no Flower run"):
        _ = grid.run

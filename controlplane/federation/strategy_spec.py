"""Which strategy a run may name, with which parameters, for which cohorts; data only, Flower is not needed to plan.

Parameters are integers (`*_micro` in millionths), each with a bound and a default; an unknown one is refused. Two
families differ in what the strategy is given. The first gets the exact mean, so only the sum is kept. The robust ones
compare updates, so all are kept, and each has a condition on the cohort below which its guarantee is void:

    FedMedian      n ≥ 2f + 1        the majority of every coordinate is honest
    FedTrimmedAvg  ⌊βn⌋ ≥ max(f, 1)  each tail that is cut holds all the dishonest
    Krum           n ≥ 2f + 3        Blanchard et al. 2017, Proposition 4.2
    MultiKrum      n ≥ 2f + 3, m ≤ n − f − 2
    Bulyan         n ≥ 4f + 3        El Mhamdi et al. 2018, section 4

`check_cohort` refuses before the start, for the plan's quorum: with fewer replies the round would not be sound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from treaty.errors import InvalidInput, PreconditionFailed
from treaty.fields import Fields
from treaty.strict_json import JsonObject, JsonValue

_MICRO = 10**6


class StrategyName(StrEnum):
    FED_AVG = "FedAvg"
    FED_PROX = "FedProx"
    FED_AVG_M = "FedAvgM"
    FED_ADAGRAD = "FedAdagrad"
    FED_ADAM = "FedAdam"
    FED_YOGI = "FedYogi"
    FED_MEDIAN = "FedMedian"
    FED_TRIMMED_AVG = "FedTrimmedAvg"
    KRUM = "Krum"
    MULTI_KRUM = "MultiKrum"
    BULYAN = "Bulyan"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One integer that a plan may set."""

    low: int
    high: int
    default: int
    keyword: str | None
    """Flower's name for it, None where only `check_cohort` needs it."""

    def to_flower(self, value: int, name: str) -> int | float:
        return value / _MICRO if name.endswith("_micro") else value


def _tolerated(keyword: str | None) -> dict[str, Parameter]:
    """How many dishonest nations the strategy is to withstand: f."""
    return {"num_malicious_nodes": Parameter(0, 100, 1, keyword)}


def _adaptive(eta_micro: int) -> dict[str, Parameter]:
    # tau keeps the step finite where nothing moved yet; a millionth is the least that the unit can say.
    return {
        "eta_micro": Parameter(1, 10 * _MICRO, eta_micro, "eta"),
        "tau_micro": Parameter(1, _MICRO, 1000, "tau"),
    }


_BETAS = {
    "beta_1_micro": Parameter(0, _MICRO - 1, 900_000, "beta_1"),
    "beta_2_micro": Parameter(0, _MICRO - 1, 990_000, "beta_2"),
}

PARAMETERS: Mapping[StrategyName, Mapping[str, Parameter]] = {
    StrategyName.FED_AVG: {},
    StrategyName.FED_PROX: {"proximal_mu_micro": Parameter(1, 1000 * _MICRO, 100_000, "proximal_mu")},
    StrategyName.FED_AVG_M: {
        "server_learning_rate_micro": Parameter(1, 10 * _MICRO, _MICRO, "server_learning_rate"),
        "server_momentum_micro": Parameter(0, _MICRO - 1, 900_000, "server_momentum"),
    },
    StrategyName.FED_ADAGRAD: _adaptive(100_000),
    StrategyName.FED_ADAM: _adaptive(100_000) | _BETAS,
    StrategyName.FED_YOGI: _adaptive(10_000) | _BETAS,
    StrategyName.FED_MEDIAN: _tolerated(None),
    StrategyName.FED_TRIMMED_AVG: _tolerated(None) | {"beta_micro": Parameter(1, 499_999, 200_000, "beta")},
    StrategyName.KRUM: _tolerated("num_malicious_nodes"),
    StrategyName.MULTI_KRUM: _tolerated("num_malicious_nodes")
    | {"num_nodes_to_select": Parameter(1, 1000, 2, "num_nodes_to_select")},
    StrategyName.BULYAN: _tolerated("num_malicious_nodes"),
}

# Peak memory of one step in copies of the global arrays (4 bytes a value), base and updates included: a fixed part and
# one per reply. Measured with tracemalloc on one large tensor, the worst case, and rounded up.
_COPIES: Mapping[StrategyName, tuple[int, int]] = {
    StrategyName.FED_AVG: (10, 0),
    StrategyName.FED_PROX: (10, 0),
    StrategyName.FED_AVG_M: (15, 0),
    StrategyName.FED_ADAGRAD: (22, 0),
    StrategyName.FED_ADAM: (22, 0),
    StrategyName.FED_YOGI: (22, 0),
    StrategyName.FED_MEDIAN: (12, 4),
    StrategyName.FED_TRIMMED_AVG: (8, 4),
    StrategyName.KRUM: (8, 4),
    StrategyName.MULTI_KRUM: (8, 4),
    StrategyName.BULYAN: (8, 7),
}


@dataclass(frozen=True, slots=True)
class StrategySpec:
    """A strategy by name with all its parameters; made by `strategy_spec` or `from_json`."""

    name: StrategyName
    parameters: Mapping[str, int]

    @property
    def keeps_all(self) -> bool:
        """True where the strategy compares updates; else it is given their exact mean."""
        return "num_malicious_nodes" in self.parameters

    @property
    def tolerated(self) -> int:
        """f, the dishonest nations it is to withstand."""
        return self.parameters.get("num_malicious_nodes", 0)

    def to_json(self) -> JsonObject:
        return {"name": str(self.name), "parameters": dict(self.parameters)}

    @classmethod
    def from_json(cls, value: JsonValue) -> StrategySpec:
        fields = Fields(value, "strategy")
        name, given = fields.choice("name", StrategyName), fields.value("parameters")
        fields.done()
        if not isinstance(given, dict):
            raise InvalidInput("strategy: 'parameters' is not an object")
        members = Fields(given, "strategy.parameters")
        return strategy_spec(name, {key: members.integer(key) for key in given})

    def flower_keywords(self) -> dict[str, int | float]:
        """The parameters as Flower's constructor takes them."""
        known = PARAMETERS[self.name]
        return {
            keyword: known[name].to_flower(value, name)
            for name, value in self.parameters.items()
            if (keyword := known[name].keyword) is not None
        }

    def training_parameters(self) -> dict[str, int]:
        """What the strategy asks of the training in the nations: FedProx's proximal term, otherwise nothing."""
        return {name: value for name, value in self.parameters.items() if name == "proximal_mu_micro"}


def strategy_spec(name: str, parameters: Mapping[str, int]) -> StrategySpec:
    """Check `name` and `parameters` and fill in the defaults. Raises InvalidInput, naming the bound."""
    try:
        known = PARAMETERS[StrategyName(name)]
    except ValueError:
        raise InvalidInput("unknown strategy", remedy="use one of " + ", ".join(StrategyName)) from None
    if unknown := parameters.keys() - known.keys():
        allowed = ", ".join(known) or "none"
        raise InvalidInput(f"{name} has {len(unknown)} unknown parameters", remedy=f"it takes: {allowed}")
    for key, value in parameters.items():
        low, high = known[key].low, known[key].high
        if type(value) is not int or not low <= value <= high:
            raise InvalidInput(f"{name}: {key} is not an integer between {low} and {high}")
    filled = {key: parameters.get(key, parameter.default) for key, parameter in known.items()}
    return StrategySpec(StrategyName(name), MappingProxyType(filled))


def minimum_cohort(spec: StrategySpec) -> int:
    """The fewest replies with which the strategy keeps its promise."""
    f = spec.tolerated
    match spec.name:
        case StrategyName.FED_MEDIAN:
            return 2 * f + 1
        case StrategyName.FED_TRIMMED_AVG:
            # Flower cuts int(beta × n) from each end, in floating point: count as it does, so that none is missed.
            beta = spec.flower_keywords()["beta"]
            n = 1
            while int(beta * n) < max(f, 1):
                n += 1
            return n
        case StrategyName.KRUM:
            return 2 * f + 3
        case StrategyName.MULTI_KRUM:
            return max(2 * f + 3, spec.parameters["num_nodes_to_select"] + f + 2)
        case StrategyName.BULYAN:
            return 4 * f + 3
        case _:
            return 1


def step_bytes(spec: StrategySpec, *, replies: int, values: int) -> int:
    """Upper estimate of the worker's memory for one step over `replies` updates of `values` values."""
    fixed, each = _COPIES[spec.name]
    return (fixed + each * replies) * values * 4


def check_cohort(spec: StrategySpec, *, quorum: int, cohort: int, values: int, memory_bytes: int) -> None:
    """Refuse a run that its strategy cannot carry, before it starts.

    Args:
        quorum: the fewest replies with which a round counts.
        cohort: the most replies that may come.
        values: of all tensors together.
        memory_bytes: what the worker may use.

    Raises: PreconditionFailed: too few nations, or not enough memory; says how many or how much it takes.
    """
    needed = minimum_cohort(spec)
    if quorum < needed:
        raise PreconditionFailed(
            f"{spec.name} against {spec.tolerated} dishonest nations needs a quorum of {needed}, the plan has {quorum}"
            if spec.keeps_all
            else f"{spec.name} needs a quorum of {needed}, the plan has {quorum}",
            remedy="raise the quorum, lower the strategy's demands or choose another strategy",
        )
    required = step_bytes(spec, replies=cohort, values=values)
    if required > memory_bytes:
        raise PreconditionFailed(
            f"{spec.name} over {cohort} updates needs up to {required >> 20} MiB, the worker has {memory_bytes >> 20}",
            remedy="give the worker more memory, or choose a strategy that works on the mean",
        )

"""The answer to the coordinator's question: what would this nation decide?

Nothing happens on it: before the agent acts it decides again, on what it then observes. So an answer assumes what only
the act itself can show, and says no more than codes and digests:
- `rollout.deploy`, `model.admit`: that the publishers signed, where this very manifest was seen signed before; that the
  nation's consent follows where its policy may give it;
- `egress.update`: nothing is assumed; without an update the answer is no, so it is asked only by those who know that.

An ask for another nation is refused, whatever it says.
"""

from __future__ import annotations

from node_agent.decisions import Decisions
from node_agent.directives import Question
from node_agent.observing import model_observed
from node_agent.ports import Core, NationAnswer
from node_agent.service import Service
from treaty.errors import PermissionRefused
from treaty.policy.decision import Decision
from treaty.policy.engine import TREATY
from treaty.policy.questions import Ask, DecisionPoint, Observed, ObservedRound, parse_ask
from treaty.strict_json import parse

MAX_ASK_BYTES = 64 * 1024


class Answers:
    def __init__(self, core: Core, decisions: Decisions, service: Service) -> None:
        self._core = core
        self._decisions = decisions
        self._service = service

    async def answer(self, question: Question) -> NationAnswer:
        """Decide what is asked, as far as it can be observed now.

        Raises: InvalidInput: not an ask. PermissionRefused: another nation's.
        """
        ask = parse_ask(parse(question.ask, max_bytes=MAX_ASK_BYTES, max_depth=8))
        if ask.nation != self._core.nation.code:
            raise PermissionRefused("the question is for another nation", code="FOREIGN_NATION")
        decision = await self._decisions.decide(ask, self._observed(ask), is_acted_on=False)
        return self._said(decision)

    def _observed(self, ask: Ask) -> Observed:
        match ask.decision_point:
            case DecisionPoint.ROLLOUT_DEPLOY | DecisionPoint.MODEL_ADMIT:
                ref = f"{ask.model.id}@{ask.model.version}" if ask.model else ""
                is_signed = self._decisions.is_recorded(ref, str(ask.model.digest if ask.model else ""))
                model = model_observed(
                    self._core.nation.code,
                    is_signed=is_signed,
                    is_consented=True,
                    running=self._service.running_version,
                    fallback=None,
                )
                return Observed(model=model, approvals=(), env=self._decisions.environment())
            case DecisionPoint.DATASET_USE | DecisionPoint.EGRESS_UPDATE:
                nations = ask.round.nations if ask.round and ask.round.nations else ()
                return Observed(round=ObservedRound(participants=len(nations)), approvals=())
            case DecisionPoint.INFER_PURPOSE:
                return Observed(subject=self._decisions.principal())
            case _:
                return Observed()

    def _said(self, decision: Decision) -> NationAnswer:
        overlay = f"nation.{self._core.nation.code}"
        return NationAnswer(
            verdict=str(decision.verdict),
            codes=decision.codes,
            ask_digest=decision.ask_digest,
            decision_digest=decision.digest,
            treaty_revision=decision.revisions.get(TREATY, 0),
            overlay_revision=decision.revisions.get(overlay, 0),
        )

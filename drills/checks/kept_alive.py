"""Kept alive: each fine-tuned stand-by answers, and was called, so that Azure lets it stand."""

from __future__ import annotations

from drills.checks.asked import AskedCheck, Judged, both_fail, not_run, verdict
from drills.checks.asking import Allowance, Bounds, Question, Said, chat
from drills.checks.golden import DEPLOYMENT, together
from drills.checks.settings import Settings
from drills.checks.targets import account_of, endpoint, find, model_of, spelled
from drills.model import CheckContext
from snapshots.errors import MissingError
from snapshots.kinds.openai import is_fine_tuned
from snapshots.model import Json, JsonObject, Key, Resource

_PROMPT = "Repeat after me: standing by"
_TOKENS = 16


def judged_alive(who: Key, model: str, said: Said | None) -> Judged:
    """Judge one call: a fine-tuned model stands there and said something. None: it is not there."""
    tuned = is_fine_tuned(model)
    answered = said is not None and (bool(said.text.strip()) or bool(said.filtered))
    observed: JsonObject = {
        "deployment": str(who),
        "there": said is not None,
        "model": model,
        "answered": answered,
    }
    words = ""
    if said is None:
        words = "is not there: never replicated, or deleted by Azure after 15 days without a call"
    elif not tuned:
        words = f"serves {model or 'nothing'}, which is no fine-tuned model"
    elif not answered:
        words = "said nothing"
    return verdict(
        tuned and answered,
        {"deployment": str(who), "there": True, "answered": True},
        observed,
        f"{who.name} {words}",
    )


class KeptAliveCheck(AskedCheck):
    """Every fine-tuned deployment that should be there answers a call.

    The call is what keeps it: Azure deletes a fine-tuned deployment without chat completions for
    15 days (learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-deploy). Its controls
    are a deployment that is gone, and one that says nothing: both must be found out.
    """

    KNOWN_AS = "kept-alive"
    ABOUT = "Fine-tuned deployments answer, and the call keeps them for another 15 days."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.deployment = settings.text("deployment")
        self.prompt = settings.text("prompt", _PROMPT)
        self.bounds = Bounds.read(settings)

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Call every one of them."""
        found = find(context, self.declaration.subject, DEPLOYMENT, self.deployment)
        should = context.expected.resources if context.expected is not None else {}

        def wanted(key: Key, there: Resource | None) -> bool:
            known = should.get(key) or there
            return known is not None and is_fine_tuned(model_of(known)[0])

        gone = [key for key in found.missing if wanted(key, None)]
        there = [one for one in found.there if wanted(one.key, one)]
        judged: list[Judged] = []
        if found.hidden:
            judged.append(not_run(f"{found.hidden[0].key}: {found.hidden[0].detail}"))
        if broken:
            return self._controls(there)
        allowance = self.bounds.allowance()
        judged += [judged_alive(key, model_of(should[key])[0], None) for key in gone]
        judged += [self._one(context, one, allowance) for one in there]
        return together(judged) if judged else not_run("no fine-tuned deployment should be there")

    def _one(self, context: CheckContext, deployment: Resource, allowance: Allowance) -> Judged:
        place = endpoint(context, account_of(context, deployment.key))
        question = Question.of(self.prompt, max_tokens=_TOKENS)
        said: Said | None
        try:
            said = chat(context, place, spelled(deployment), question, allowance)
        except MissingError:
            said = None
        return judged_alive(deployment.key, model_of(deployment)[0], said)

    @staticmethod
    def _controls(there: list[Resource]) -> Judged:
        if not there:
            return not_run("no fine-tuned deployment is there that could be broken")
        found = [
            both_fail(
                judged_alive(one.key, model_of(one)[0], None),
                judged_alive(one.key, model_of(one)[0], Said("")),
            )
            for one in there
        ]
        names: list[Json] = [str(one.key) for one in there]
        judged = together(found)
        return Judged(judged.state, names, judged.observed, judged.detail)

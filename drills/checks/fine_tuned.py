"""A fine-tuned deployment answers as it was recorded, and not as its base model does."""

from __future__ import annotations

from drills.checks.asked import AskedCheck, Judged, not_run, verdict
from drills.checks.asking import Bounds, Said, chat
from drills.checks.golden import deployments_of, together
from drills.checks.golden_sets import GoldenSet, load, pinned
from drills.checks.scoring import Expect, enough, plain, score
from drills.checks.settings import Settings
from drills.checks.targets import account_of, endpoint, find, model_of, spelled
from drills.model import CheckContext
from snapshots.errors import InputError
from snapshots.kinds.openai import is_fine_tuned
from snapshots.model import Json, JsonObject, Key, Resource

_SCORED = frozenset({Expect.EXACT, Expect.PATTERN, Expect.JSON_SCHEMA, Expect.REFUSAL})


def base_model_of(name: str) -> str:
    """Give the base model in a fine-tuned model's name ("gpt-4o-mini-2024-07-18.ft-…")."""
    if name.startswith("ft:"):
        return name.split(":")[1] if name.count(":") else ""
    return name.partition(".ft-")[0] if ".ft-" in name else ""


def judged_tuned(
    golden: GoldenSet,
    tuned: list[Said],
    base: list[str],
    tolerance: float,
    who: Key,
) -> Judged:
    """Judge answers of the tuned model against the record and against the base model's answers."""
    recorded = sum(
        score(said, case.expect).met for said, case in zip(tuned, golden.cases, strict=True)
    )
    alike = [
        case.id
        for case, said, other in zip(golden.cases, tuned, base, strict=True)
        if plain(said.text) == plain(other)
    ]
    count = len(golden.cases)
    differs = len(alike) < count and enough(count - len(alike), count, tolerance)
    as_recorded = enough(recorded, count, tolerance)
    observed: JsonObject = {
        "deployment": str(who),
        "as_recorded": recorded,
        "like_base": list[Json](alike),
    }
    words: list[str] = []
    if not as_recorded:
        words.append(f"{count - recorded} of {count} answers are not those that were recorded")
    if not differs:
        words.append(f"{len(alike)} of {count} answers are the base model's")
    return verdict(
        as_recorded and differs,
        {"set": golden.name, "digest": f"sha256:{golden.digest}", "as_recorded": count},
        observed,
        f"{who.name}: {'; '.join(words)}",
    )


class FineTunedCheck(AskedCheck):
    """A fine-tuned deployment gives its recorded answers, and its base model gives others.

    Its control lets the base model answer in its place: a living deployment of it where there is
    one, else its recorded answers.
    """

    KNOWN_AS = "fine-tuned-differs"
    ABOUT = "A fine-tuned model gives its recorded answers, which its base model does not."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.set = settings.required("set", "a golden data set recorded from the fine-tuned model")
        self.digest = settings.text("digest")
        self.deployment = settings.text("deployment")
        self.base = settings.text("base_deployment")
        self.tolerance = settings.number("tolerance", 0.0, least=0.0, most=0.99)
        self.bounds = Bounds.read(settings)

    def _base_deployment(self, context: CheckContext, tuned: Resource) -> str:
        if self.base:
            return self.base
        stem = base_model_of(model_of(tuned)[0])
        for key, other in sorted(context.live().resources.items()):
            if key.kind == "deployment" and key.within == tuned.key.within:
                name, version = model_of(other)
                if name and not is_fine_tuned(name) and stem in {name, f"{name}-{version}"}:
                    return spelled(other)
        return ""

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Ask the tuned model and its base."""
        golden = load(self.set, context)
        pinned(golden, self.digest)
        if any(case.expect.kind not in _SCORED for case in golden.cases):
            raise InputError(
                f"a set for {self.KNOWN_AS} expects {', '.join(sorted(_SCORED))} only",
                where=golden.name,
            )
        allowance = self.bounds.allowance()
        asked = deployments_of(context, golden, self.declaration.subject, self.deployment)
        found: list[Judged] = []
        if asked.complaint is not None:
            found.append(not_run(asked.complaint.detail) if broken else asked.complaint)
        for tuned in asked.deployments:
            model = model_of(tuned)[0]
            if not is_fine_tuned(model) and not broken:
                found.append(
                    verdict(
                        False,
                        {"set": golden.name, "model": "a fine-tuned one"},
                        {"deployment": str(tuned.key), "model": model},
                        f"{tuned.key.name} serves {model}, which is no fine-tuned model",
                    )
                )
                continue
            place = endpoint(context, account_of(context, tuned.key))
            base = self._base_deployment(context, tuned)
            if base:
                find(context, "", frozenset({"deployment"}), base)
                under = [
                    chat(context, place, base, case.question, allowance).text
                    for case in golden.cases
                ]
            elif all(case.base for case in golden.cases):
                under = [case.base for case in golden.cases]
            else:
                found.append(
                    not_run(
                        f"no base model to compare {tuned.key.name} with: deploy one, name "
                        "base_deployment, or record the set with its answers"
                    )
                )
                continue
            if broken:
                answers = [Said(text) for text in under]
            else:
                answers = [
                    chat(context, place, spelled(tuned), case.question, allowance)
                    for case in golden.cases
                ]
            found.append(judged_tuned(golden, answers, under, self.tolerance, tuned.key))
        return together(found)

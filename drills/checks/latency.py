"""Latency: answers come within the time that was recorded, and a tolerance."""

from __future__ import annotations

from collections.abc import Sequence

from drills.checks.asked import AskedCheck, Judged, not_run, verdict
from drills.checks.asking import Bounds, Question, chat
from drills.checks.golden import DEPLOYMENT, together
from drills.checks.golden_sets import load
from drills.checks.scoring import median
from drills.checks.settings import Settings
from drills.checks.targets import account_of, endpoint, find, spelled
from drills.model import CheckContext
from snapshots.errors import InputError
from snapshots.model import Key

_PROMPT = "Repeat after me: ready"
_TOKENS = 16


def judged_times(seconds: Sequence[float], limit: float, who: Key) -> Judged:
    """Judge the median of the samples: one slow answer is weather, half of them are climate."""
    found = median(seconds)
    return verdict(
        bool(seconds) and found <= limit,
        {"deployment": str(who), "median_at_most": limit},
        {"median": found, "slowest": max(seconds, default=0.0), "samples": len(seconds)},
        f"{who.name}: the median of {len(seconds)} answers is {found:.3f} s, over {limit:.3f} s",
    )


class LatencyCheck(AskedCheck):
    """Deployments answer a short question about as fast as was recorded.

    The limit is `limit`, or `baseline` (also that of a golden `set`) times `tolerance`, and at
    least `least`. With a set its own questions are asked, in turn: what took so long when it was
    recorded is compared with itself. Its control adds twice the limit to every sample.
    """

    KNOWN_AS = "latency"
    ABOUT = "Answers come within the recorded time and a tolerance."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.deployment = settings.text("deployment")
        self.prompt = settings.text("prompt")
        self.set = settings.text("set")
        self.limit = settings.number("limit", 0.0, least=0.0)
        self.baseline = settings.number("baseline", 0.0, least=0.0)
        self.tolerance = settings.number("tolerance", 3.0, least=1.0, most=1000.0)
        self.least = settings.number("least", 1.0, least=0.0)
        self.samples = settings.whole("samples", 5, least=1, most=1000)
        if not self.limit and not self.baseline and not self.set:
            raise settings.wrong(
                "nothing to hold the times against", "give a limit, a baseline or a golden set"
            )
        if not self.set and not self.deployment and not self.declaration.subject:
            raise settings.wrong("nobody to ask", "name a deployment, a subject or a golden set")
        self.bounds = Bounds.read(settings)

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Take the samples."""
        name, baseline = self.deployment, self.baseline
        questions = [Question.of(self.prompt or _PROMPT, max_tokens=_TOKENS)]
        if self.set:
            golden = load(self.set, context)
            name, baseline = name or golden.deployment, baseline or golden.seconds
            if not self.limit and not baseline:
                raise InputError(
                    "nobody took the time when this set was recorded",
                    where=golden.name,
                    remedy="record it again, or give the check a limit or a baseline",
                )
            if not self.prompt and not self.baseline and not self.limit:
                questions = [case.question for case in golden.cases]
        limit = self.limit or max(self.least, baseline * self.tolerance)
        found = find(context, self.declaration.subject, DEPLOYMENT, name)
        judged: list[Judged] = []
        if found.missing and not broken:
            judged.append(verdict(False, "deployments", None, found.complaint()))
        if found.hidden:
            judged.append(not_run(f"{found.hidden[0].key}: {found.hidden[0].detail}"))
        allowance = self.bounds.allowance()
        for deployment in found.there:
            place = endpoint(context, account_of(context, deployment.key))
            count = 1 if broken else self.samples
            times = [
                chat(
                    context, place, spelled(deployment), questions[at % len(questions)], allowance
                ).seconds
                for at in range(count)
            ]
            if broken:
                times = [seconds + 2 * limit + 1 for seconds in times]
            judged.append(judged_times(times, limit, deployment.key))
        return together(judged)

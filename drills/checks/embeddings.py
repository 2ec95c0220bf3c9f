"""Embeddings: the vectors of a recovered deployment lie where the recorded ones lay."""

from __future__ import annotations

from drills.checks.asked import AskedCheck, Judged, not_run, verdict
from drills.checks.asking import Bounds, embed
from drills.checks.golden import deployments_of, together
from drills.checks.golden_sets import GoldenSet, load, pinned
from drills.checks.scoring import Expect, cosine
from drills.checks.settings import Settings
from drills.checks.targets import account_of, endpoint, spelled
from drills.model import CheckContext
from snapshots.errors import InputError
from snapshots.model import Json, Key


def perturbed(vector: tuple[float, ...]) -> tuple[float, ...]:
    """Give a vector of the same length that is not the same: components moved on, one negated.

    For a vector that moving does not change (all components alike), the negation does.
    """
    moved = (*vector[-1:], *vector[:-1])
    if len(moved) == 1:
        return tuple(-x for x in moved)
    return tuple(-x if at % 2 else x for at, x in enumerate(moved))


def judged_vectors(
    golden: GoldenSet, vectors: list[tuple[float, ...]], least: float | None, who: Key
) -> Judged:
    """Hold vectors against the recorded ones, each with its threshold (or `least` for all)."""
    near: list[tuple[str, float, float]] = []
    for case, vector in zip(golden.cases, vectors, strict=True):
        wanted = case.expect.threshold if least is None else least
        near.append((case.id, cosine(vector, case.expect.vector), wanted))
    far: list[Json] = [
        {"case": id_, "cosine": round(value, 6), "least": wanted}
        for id_, value, wanted in near
        if value < wanted
    ]
    lowest = min(value for _, value, _ in near)
    lengths = sorted({len(vector) for vector in vectors})
    return verdict(
        not far,
        {"set": golden.name, "digest": f"sha256:{golden.digest}", "cases": len(near)},
        {
            "deployment": str(who),
            "lowest_cosine": round(lowest, 6),
            "lengths": list(lengths),
            "far": far[:10],
        },
        f"{golden.name} on {who.name}: {len(far)} of {len(near)} vectors lie elsewhere "
        f"(lowest cosine {lowest:.3f}): another model or version",
    )


class EmbeddingsCheck(AskedCheck):
    """Vectors of an embeddings deployment agree with the recorded ones.

    Its control holds perturbed vectors against the same record: none may be near.
    """

    KNOWN_AS = "embeddings"
    ABOUT = "Vectors agree with the recorded ones, so that old indexes can be used."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.set = settings.required("set", "a golden data set of vectors")
        self.digest = settings.text("digest")
        self.deployment = settings.text("deployment")
        given = settings.number("threshold", -2.0, least=-2.0, most=1.0)
        self.least = None if given < -1.0 else given
        self.bounds = Bounds.read(settings)

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Ask for the vectors."""
        golden = load(self.set, context)
        pinned(golden, self.digest)
        if any(case.expect.kind is not Expect.VECTOR for case in golden.cases):
            raise InputError("a set for embeddings holds vectors only", where=golden.name)
        allowance = self.bounds.allowance()
        asked = deployments_of(context, golden, self.declaration.subject, self.deployment)
        found: list[Judged] = []
        if asked.complaint is not None:
            found.append(not_run(asked.complaint.detail) if broken else asked.complaint)
        texts = [case.prompt for case in golden.cases]
        for deployment in asked.deployments:
            if broken:
                vectors = [perturbed(case.expect.vector) for case in golden.cases]
            else:
                place = endpoint(context, account_of(context, deployment.key))
                vectors = embed(
                    context,
                    place,
                    spelled(deployment),
                    texts,
                    allowance,
                    dimensions=golden.dimensions,
                )
            found.append(judged_vectors(golden, vectors, self.least, deployment.key))
        return together(found)

"""ARM resource ids: taken apart, compared without case, put together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResourceId:
    """One resource's id, or (when `collection`) the id of a listing.

    `type` is spelled as in the path ("Microsoft.CognitiveServices/accounts/deployments");
    `scope` is what stands before the last "/providers/" ("" for tenant level).
    """

    text: str  # without a trailing slash
    scope: str
    namespace: str
    types: tuple[str, ...]
    names: tuple[str, ...]  # one shorter than `types` for a collection

    @property
    def collection(self) -> bool:
        """Whether this names a listing instead of one resource."""
        return len(self.names) < len(self.types)

    @property
    def type(self) -> str:
        """The full type."""
        return "/".join((self.namespace, *self.types))

    @property
    def key(self) -> str:
        """The id for comparing: lower case."""
        return self.text.lower()

    @property
    def name(self) -> str:
        """The resource's own name ("" for a collection)."""
        return "" if self.collection else self.names[-1]

    @property
    def parent(self) -> str:
        """The id of what holds it: the parent resource, or the scope of a top-level one."""
        if len(self.types) == 1:
            return self.scope
        pairs = zip(self.types[:-1], self.names, strict=False)
        inner = "/".join(f"{t}/{n}" for t, n in pairs)
        return f"{self.scope}/providers/{self.namespace}/{inner}"

    @property
    def subscription(self) -> str:
        """The subscription's id as spelled, or ""."""
        return segment_after(self.text, "subscriptions")

    @property
    def group(self) -> str:
        """The resource group's name as spelled, or ""."""
        return segment_after(self.text, "resourceGroups")

    def child(self, type_: str, name: str) -> ResourceId:
        """The id of a child resource."""
        return parse_id(f"{self.text}/{type_}/{name}")


def segment_after(path: str, word: str) -> str:
    """The path segment behind `word` (compared without case), or ""."""
    parts = path.strip("/").split("/")
    for i, part in enumerate(parts[:-1]):
        if part.lower() == word.lower():
            return parts[i + 1]
    return ""


def parse_id(path: str) -> ResourceId:
    """Take a path apart. Raises ValueError when it holds no /providers/ part."""
    text = "/" + path.strip("/")
    at = text.lower().rfind("/providers/")
    if at < 0:
        message = f"no resource provider in {path!r}"
        raise ValueError(message)
    namespace, *rest = text[at + len("/providers/") :].split("/")
    types, names = tuple(rest[0::2]), tuple(rest[1::2])
    if not namespace or not types or not all(rest):
        message = f"not a resource id: {path!r}"
        raise ValueError(message)
    return ResourceId(text, text[:at], namespace, types, names)


def region_name(location: str) -> str:
    """A region for comparing: "Japan East" and "JAPANEAST" are japaneast."""
    return location.replace(" ", "").lower()

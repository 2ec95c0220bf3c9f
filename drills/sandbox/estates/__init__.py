"""Estates: what a new sandbox holds, as YAML files that are loaded through the engine itself."""

from __future__ import annotations

from drills.sandbox.estates.reader import load_estate
from drills.sandbox.estates.yaml_nodes import EstateError

__all__ = ["EstateError", "load_estate"]

"""Rehearsals and proof: drills, checks, evidence, and the sandbox they are rehearsed in."""

"""Live state against the approved baseline: who, when, planned or not, how bad, and what then."""

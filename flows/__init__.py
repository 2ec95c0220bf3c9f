"""Prefect, and nothing but: one thin flow per file, named as a sentence."""

"""A local Azure that speaks the real wire protocol: for proof, rehearsals and demos.

It imports nothing of muster's own, so that a shared mistake cannot pass on both sides.
"""

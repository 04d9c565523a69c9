"""Checks of what is on disk: an output folder against its manifest and its recipe, two checkpoints against each other.

Nothing here writes. `pymerge.verify` is the function `pymerge.verify.folder.verify`, `pymerge.compare` that of
`pymerge.verify.compare`; numpy is loaded with either of them.
"""

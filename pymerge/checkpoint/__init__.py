"""Checkpoints on disk: folders, headers, and the architecture that names and config.json show."""

from pymerge.checkpoint.architecture import Architecture, Layer, Stack, infer_architecture
from pymerge.checkpoint.folder import open_checkpoint
from pymerge.checkpoint.stacking import restack_config
from pymerge.checkpoint.values import Checkpoint, Source, StoredTensor

__all__ = [
    "Architecture",
    "Checkpoint",
    "Layer",
    "Source",
    "Stack",
    "StoredTensor",
    "infer_architecture",
    "open_checkpoint",
    "restack_config",
]

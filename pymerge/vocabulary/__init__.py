"""Tokenizers of several models made into one, and where each row of its embedding comes from; no weights."""

from pymerge.vocabulary.make import make_vocabulary
from pymerge.vocabulary.values import Vocabulary

__all__ = ["Vocabulary", "make_vocabulary"]

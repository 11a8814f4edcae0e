"""The search for captions, once for torch and for exports."""

from captune.decoding.generate import captions_of, search

__all__ = ["captions_of", "search"]

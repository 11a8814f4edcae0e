"""The search for captions, once for torch and for exports."""

from captune.decoding.generate import generate, search

__all__ = ["generate", "search"]

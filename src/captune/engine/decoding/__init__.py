"""Captions from what a model has seen: one engine for every family that offers a `Decoder`."""

from captune.engine.decoding.generate import generate

__all__ = ["generate"]

"""Versions of what a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "captune",
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "safetensors",
    "onnxruntime",
    "openvino",
    "pillow",
    "numpy",
)


def versions() -> dict[str, str]:
    """Python, the platform, and every package that shapes a result."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found

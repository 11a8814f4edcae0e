"""What runs an exported model: numpy and a session of onnxruntime or OpenVINO, without torch and transformers."""

from captune.inference.runtime.model import ExportedModel

__all__ = ["ExportedModel"]

"""What leaves captune: graphs for other runtimes, named in this table, and folders for the Hugging Face Hub.

A target is a module with `DESCRIPTION`, `OPSET`, `check_installed` and `write`; `captune.inference.runtime` runs it.
"""

from captune.core.tables import Table

EXPORTERS = Table(
    "export target", {"onnx": "captune.export.onnx", "openvino": "captune.export.openvino"}, group="captune.export"
)

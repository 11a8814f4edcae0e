"""What leaves captune: graphs for other runtimes, named in this table, and folders for the Hugging Face Hub.

A target is a module with `DESCRIPTION`, `OPSET`, `check_installed` and `write`; `captune.runtime` runs what it wrote.
"""

from captune.core.tables import Table

EXPORTERS = Table(
    "export target",
    {
        "onnx": "captune.exporters.onnx",
        "openvino": "captune.exporters.openvino",
    },
    group="captune.exporters",
)

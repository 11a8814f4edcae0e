"""No file of a stranger runs code: what could load code is called in one place, or told not to."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import captune

SOURCE = Path(captune.__file__).parent
# Calls that run what a file holds, whatever they are told; `nn.Embedding.from_pretrained` takes a tensor.
NEVER = {
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "joblib.load",
    "eval",
    "exec",
    "PeftModel.from_pretrained",
    "AutoPeftModel.from_pretrained",
    "transformers.pipeline",
}
TOLD = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}
DOOR = SOURCE / "models" / "loading" / "pretrained.py"


def told(call: ast.Call, name: str, value: bool) -> bool:
    return any(
        keyword.arg == name and isinstance(keyword.value, ast.Constant) and keyword.value.value is value
        for keyword in call.keywords
    )


def faults(text: str, *, door: bool = False) -> list[str]:
    """Calls of a source text that could run what a file holds."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if (
            name in NEVER
            or any(keyword.arg == "trust_remote_code" for keyword in node.keywords)
            or (name in TOLD and not told(node, *TOLD[name]))
            or (name.endswith(".from_pretrained") and not name.endswith("Embedding.from_pretrained") and not door)
        ):
            found.append(name)
    return found


def test_what_could_run_code_is_called_in_one_place() -> None:
    words = ("from_pretrained", "load(", "loads(", "trust_remote_code", "pipeline(", "eval(", "exec(", "_load(")
    texts = {path: path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    wrong = {
        str(path.relative_to(SOURCE)): found
        for path, text in texts.items()
        if any(word in text for word in words) and (found := faults(text, door=path == DOOR))
    }
    assert wrong == {}, "call captune.models.loading.pretrained.pretrained; weights_only=True; allow_pickle=False"


@pytest.mark.parametrize(
    "line",
    [
        "CLIPModel.from_pretrained(name)",
        "getattr(transformers, kind).from_pretrained(name)",
        "pretrained(AutoConfig, name, trust_remote_code=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "yaml.load(text, Loader=yaml.Loader)",
    ],
)
def test_the_law_sees(line: str) -> None:
    assert faults(line)

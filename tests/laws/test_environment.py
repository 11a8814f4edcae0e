"""Every environment variable that captune reads stands in the table, and every option's in a verb's configuration."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from captune.core.config import leaves
from captune.core.environment import VARIABLES
from captune.core.options.verbs import configs

SOURCE = Path(__file__).resolve().parents[2] / "src" / "captune"


def constants(tree: ast.Module) -> dict[str, str]:
    """Names that a module gives to texts, `A, B = "x", "y"` included."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets, values = node.targets[0], node.value
            pairs = (
                zip(targets.elts, values.elts, strict=True)
                if isinstance(targets, ast.Tuple) and isinstance(values, ast.Tuple)
                else [(targets, values)]
            )
            for target, value in pairs:
                if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[target.id] = value.value
    return found


def of_environment(node: ast.expr) -> bool:
    """`os.environ`, `environment`, `(environment or {})`."""
    return any(word in ast.unparse(node) for word in ("environ", "known"))


def read_in(tree: ast.Module) -> Iterator[str]:
    named = constants(tree)

    def text(node: ast.expr) -> str | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        return named.get(node.id) if isinstance(node, ast.Name) else None

    for node in ast.walk(tree):
        asked: ast.expr | None = None
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in ("get", "pop", "setdefault", "getenv"):
                asked = node.args[0] if node.args and of_environment(called.value) else None
            elif isinstance(called, ast.Name) and called.id == "_asks_for":
                asked = node.args[0]
            for keyword in node.keywords:
                if keyword.arg == "envvar" and (name := text(keyword.value)):
                    yield name
        elif isinstance(node, ast.Subscript) and of_environment(node.value):
            asked = node.slice
        if asked is not None and (name := text(asked)) and name.isupper():
            yield name


def test_every_variable_that_is_read_is_in_the_table() -> None:
    own = {variable for config in configs().values() for leaf in leaves(config).values() for variable in leaf.env}
    listed = own | {one.name for one in VARIABLES}
    missing = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path in SOURCE.rglob("*.py")
        for name in read_in(ast.parse(path.read_text(encoding="utf-8")))
        if name not in listed
    }
    assert missing == set()


def test_the_law_sees_the_ways_to_read() -> None:
    code = (
        "A, B = 'A_ONE', 'B_TWO'\nos.environ.get(A)\nos.environ[B]\nenvironment.get('C')\n"
        "(environment or {}).get('D')\nos.environ.setdefault('E', '1')\nOption('--x', envvar='F')\n_asks_for('G')\n"
    )
    assert set(read_in(ast.parse(code))) == {"A_ONE", "B_TWO", "C", "D", "E", "F", "G"}


def test_no_variable_stands_twice() -> None:
    names = [one.name for one in VARIABLES]
    assert len(names) == len(set(names))
    assert not {leaf.env[1] for c in configs().values() for leaf in leaves(c).values() if leaf.env[1:]} & set(names)

"""Try every kind of vision-language model in tests/tiny_vlm_kinds.py, and write what was found to docs/vlm-kinds.json.

    python docs/vlm_kinds.py           write it; then: python docs/generate.py
    python docs/vlm_kinds.py --check   fail where it says something else

Each kind is built from its configuration class with small random weights. It captions three images of different shapes,
alone and together, it learns five references, and a saved folder captions alike. A kind that is refused is a folder
with all but weights; its message is kept.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOUND = ROOT / "docs" / "vlm-kinds.json"
sys.path.insert(0, str(ROOT / "tests"))


def main(arguments: list[str]) -> int:
    from transformers.utils import logging

    from tiny_vlm_kinds import KINDS, REFUSED, tried

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    found = {kind: tried(kind) for kind in sorted([*KINDS, *REFUSED])}
    if "--check" not in arguments:
        FOUND.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        return 0
    written = json.loads(FOUND.read_text(encoding="utf-8"))
    wrong = [kind for kind in found.keys() | written.keys() if found.get(kind) != written.get(kind)]
    print("\n".join(f"{kind}: {found.get(kind)}, not {written.get(kind)}" for kind in wrong))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

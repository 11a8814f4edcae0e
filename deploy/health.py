"""Whether a service of this container answers: `health.py URL...` ends with 0 if one of them gives 200.

Python's standard library alone: the images have no curl.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

# The address is the container's own: no proxy of the environment is asked.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def trouble(url: str) -> str:
    """What is wrong with a service; empty if it answers 200 within three seconds."""
    try:
        with DIRECT.open(url, timeout=3) as answer:
            return "" if answer.status == 200 else f"status {answer.status}"
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except OSError as error:
        return str(getattr(error, "reason", error))


def main(urls: list[str]) -> int:
    troubles = [f"{url}: {found}" for url in urls if (found := trouble(url))]
    if urls and len(troubles) < len(urls):
        return 0
    print("\n".join(troubles) or "usage: health.py URL...", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What tests ask of a page in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def drawn(page: Page) -> None:
    """Wait until the page has run to its end: a click into a redraw can be lost."""
    page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]').wait_for()


def not_faded(page: Page) -> None:
    """Wait until nothing is faded, as what is about to be drawn anew is: its contrast is nobody's."""
    page.wait_for_function(
        "() => !document.querySelector('[data-stale=\"true\"]')"
        " && !document.getAnimations().some((one) => one instanceof CSSTransition && one.playState === 'running')"
    )


def in_view(what: Locator) -> bool:
    box, size = what.bounding_box(), what.page.viewport_size
    return bool(box and size and box["y"] >= 0 and box["y"] + box["height"] <= size["height"])


def serious(page: Page, *, at_rest: bool = True) -> list[tuple[str, list[str]]]:
    """The serious findings of axe: rule and elements. `at_rest=False` looks at a page that is drawn all the time."""
    from axe_playwright_python.sync_playwright import Axe

    if at_rest:
        not_faded(page)
    return [
        (violation["id"], [node["html"] for node in violation["nodes"]])
        for violation in Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        if violation["impact"] in ("critical", "serious")
    ]

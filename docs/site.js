// Tables that are wider than the screen scroll by keyboard as well. The theme wraps them when it gets to it.
new MutationObserver(() =>
  document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((wrap) => (wrap.tabIndex = 0)),
).observe(document.body, { childList: true, subtree: true });

"""Images of web pages and Markdown: which have no alternative text, what it could be, and changes that are no more."""

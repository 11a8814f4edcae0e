"""The routes of the server: a router in a file, a line here."""

from captune.core.tables import Table

ROUTES = Table(
    "route",
    {
        "captions": "captune.server.routes.captions:router",
        "chat": "captune.server.routes.chat:router",
        "ollama": "captune.server.routes.ollama:router",
        "search": "captune.server.routes.search:router",
        "about": "captune.server.routes.about:router",
    },
    group="captune.routes",
    contract="A route is a FastAPI router; it reads bodies by captune.server.bodies.RequestBody.",
)

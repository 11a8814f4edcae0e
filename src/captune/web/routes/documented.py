"""How a route that reads JSON and forms alike is documented."""

from __future__ import annotations

from typing import Any, get_origin

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from captune.web.asked import AskRequest, BatchRequest, CaptionRequest, ChatRequest, MatchRequest, in_words_of_requests
from captune.web.bodies import MULTIPART
from captune.web.problems import ProblemBody

KINDS: tuple[type[BaseModel], ...] = (CaptionRequest, BatchRequest, AskRequest, MatchRequest, ChatRequest, ProblemBody)
PICTURES = ("image", "images")


def body(kind: type[BaseModel], example: dict[str, Any], *, forms: bool = True) -> dict[str, Any]:
    """The body of a route, for OpenAPI."""
    content: dict[str, Any] = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}, "example": example}
    }
    if forms:
        content[MULTIPART] = {"schema": {"$ref": f"#/components/schemas/{kind.__name__}Form"}}
    return {"requestBody": {"required": True, "content": content}}


def components() -> dict[str, Any]:
    """The schemas of all bodies; of those that may be forms a second one, whose pictures are files."""
    template = "#/components/schemas/{model}"
    _, found = models_json_schema([(kind, "validation") for kind in KINDS], ref_template=template)
    schemas: dict[str, Any] = in_words_of_requests(found["$defs"])
    for kind in KINDS[:4]:
        form = {**schemas[kind.__name__], "title": f"{kind.__name__}Form"}
        form["properties"] = {name: dict(field) for name, field in form["properties"].items()}
        for name in PICTURES:
            if name in form["properties"]:
                file = {"type": "string", "format": "binary"}
                several = get_origin(kind.model_fields[name].annotation) is list
                form["properties"][name] = {"type": "array", "items": file, "minItems": 1} if several else file
        schemas[f"{kind.__name__}Form"] = form
    return schemas

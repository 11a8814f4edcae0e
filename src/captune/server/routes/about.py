"""What the server is: its models, its options, its health."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from captune.core.options import GenerationOptions, WordingOptions
from captune.server.openapi import with_field_names
from captune.server.schemas import READ_PROBLEMS, Health, ModelCard, ModelList
from captune.server.service import TheService

router = APIRouter(tags=["server"])


@router.get("/v1/models", summary="Models", responses=READ_PROBLEMS)
async def models(service: TheService) -> ModelList:
    """The models by the names that requests use, the default ones first."""
    return ModelList(
        data=[
            ModelCard(id=model.name, created=model.created, family=model.family, loaded=model.worker is not None)
            for model in service.pool.models.values()
        ]
    )


@router.get("/v1/options", summary="Options of the search", responses=READ_PROBLEMS)
async def options() -> dict[str, Any]:
    """The JSON schema of the options that /v1/caption takes: their defaults, limits and meaning."""
    found = [kind.model_json_schema() for kind in (GenerationOptions, WordingOptions)]
    properties = {name: field for schema in found for name, field in schema["properties"].items()}
    schema: dict[str, Any] = with_field_names({**found[0], "properties": properties})
    return schema


@router.get("/health/live", summary="Is the server there?")
async def live() -> Health:
    """200 as long as it answers at all; needs no key."""
    return Health(status="ok")


@router.get("/health/ready", summary="Does it take requests?", responses={503: {"model": Health}})
async def ready(service: TheService) -> Any:
    """200 once the models are loaded; 503 before, while nothing can be decoded, and from SIGTERM on. Needs no key."""
    if service.ready:
        return Health(status="ready")
    return JSONResponse({"status": service.status}, status_code=503, headers={"Retry-After": "1"})


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **READ_PROBLEMS},
)
async def metrics(service: TheService) -> Response:
    """Requests by route and status, times, sizes of batches, memory of the process."""
    return Response(service.metrics.text(), media_type=service.metrics.media_type)

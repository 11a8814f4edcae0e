"""Search of a library (`captune serve --library`)."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from captune.core.options import FilterOptions
from captune.library.listing import printable
from captune.server.bodies import RequestBody
from captune.server.problems import Problem
from captune.server.schemas import WORK_PROBLEMS, FoundItem, SearchRequest
from captune.server.service import TheContext, TheService

router = APIRouter(tags=["library"])
SEARCH = RequestBody(SearchRequest, {"words": "two dogs", "status": "approved", "limit": 10})


@router.post("/v1/search", summary="Find images of the library", responses=WORK_PROBLEMS)
async def search(
    request: Annotated[SearchRequest, Depends(SEARCH)], service: TheService, context: TheContext
) -> list[FoundItem]:
    """Images by words, by meaning or by another image, best first: what `captune search --json` prints."""
    library = service.library
    if library is None:
        raise Problem(404, "There is no library here.", "Start the server with --library FOLDER.")
    like = None
    if request.like is not None:
        like = (await service.decoded(request.like, await library.preprocessing(), context)).pixels
    conditions = FilterOptions(**{name: getattr(request, name) for name in FilterOptions.model_fields})
    found = await library.search(request.words, mode=request.mode, like=like, limit=request.limit, filter=conditions)
    return [FoundItem.model_validate(_printable(each.to_json())) for each in found]


def _printable(values: dict[str, Any]) -> dict[str, Any]:
    return {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}

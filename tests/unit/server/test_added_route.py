"""A REST route of another package: a module and an entry point. It has the server's limits, errors and docs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROUTE = '''
"""The number of characters of texts."""
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from captune.server.bodies import RequestBody
from captune.server.schemas import WORK_PROBLEMS


class LengthsRequest(BaseModel):
    """Texts to count."""

    texts: list[str]


class LengthsAnswer(BaseModel):
    """The number of characters of each text."""

    lengths: list[int]


router = APIRouter()
BODY = RequestBody(LengthsRequest, {"texts": ["a red circle"]})


@router.post("/v1/lengths", summary="Count characters", responses=WORK_PROBLEMS)
async def lengths(request: Annotated[LengthsRequest, Depends(BODY)]) -> LengthsAnswer:
    """The number of characters of texts."""
    return LengthsAnswer(lengths=[len(text) for text in request.texts])
'''
PROGRAM = """
import json
from fastapi.testclient import TestClient
from captune.server.server import create_app

app = create_app({}, keys={"phone": "secret"})
client = TestClient(app, headers={"Authorization": "Bearer secret"})
answers = [
    client.post("/v1/lengths", json={"texts": ["a", "two"]}),
    client.post("/v1/lengths", files=[("texts", (None, "a")), ("texts", (None, "two"))]),
    client.post("/v1/lengths", json={"texts": "a"}),
    client.post("/v1/lengths", content=b"{", headers={"Content-Type": "application/json"}),
    client.post("/v1/lengths", json={"texts": []}, headers={"Authorization": "Bearer wrong"}),
]
schema = client.get("/openapi.json")
print(json.dumps([[(a.status_code, a.json()) for a in answers], schema.json()]))
"""


def test_another_package_adds_a_route(tmp_path: Path) -> None:
    (tmp_path / "lengths_route.py").write_text(ROUTE)
    dist = tmp_path / "lengths_route-1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: lengths-route\nVersion: 1.0\n")
    (dist / "entry_points.txt").write_text("[captune.routes]\nlengths = lengths_route:router\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    answers, schema = json.loads(done.stdout.splitlines()[-1])
    assert [status for status, _ in answers] == [200, 200, 422, 400, 401]
    assert answers[0][1] == answers[1][1] == {"lengths": [1, 3]}
    assert answers[2][1]["errors"][0]["field"] == "texts"
    operation = schema["paths"]["/v1/lengths"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"LengthsRequest", "LengthsRequestForm", "LengthsAnswer"} <= set(schema["components"]["schemas"])
    assert operation["security"] == [{"key": []}, {}]

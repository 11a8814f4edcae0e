"""The log of a server whose reader stalls or has gone."""

from __future__ import annotations

import json
import logging
import os
import time

from captune.server.logs import LogWriter


def test_a_reader_that_stalls_holds_nobody_up() -> None:
    reads, writes = os.pipe()
    handler = LogWriter(writes, max_lines=100)
    begun = time.monotonic()
    for number in range(2000):
        handler.handle(logging.makeLogRecord({"msg": "request", "fields": {"number": number, "path": "x" * 1000}}))
    assert time.monotonic() - begun < 1
    found = b""
    while found.count(b"\n") < 100:  # the reader goes on
        found += os.read(reads, 1 << 20)
    handler.handle(logging.makeLogRecord({"msg": "later"}))
    handler.close()
    os.close(writes)
    while part := os.read(reads, 1 << 20):
        found += part
    os.close(reads)
    lines = [json.loads(line) for line in found.splitlines()]
    assert [line["number"] for line in lines[:50]] == list(range(50))
    requests = sum(line["event"] == "request" for line in lines)
    assert sum(line["lines"] for line in lines if line["event"] == "log lines left out") == 2000 - requests > 1000
    assert lines[-1]["event"] == "later"


def test_a_reader_that_has_gone_is_no_error() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    handler = LogWriter(writes)
    handler.handle(logging.makeLogRecord({"msg": "request"}))
    handler.close()
    os.close(writes)

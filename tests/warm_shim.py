"""`captune` in the shell of a page: hands its words to the warm process, and answers with their exit code.

A server takes the place of the one before and is left running; the shim ends when it answers.
"""

import http.client
import json
import os
import signal
import socket
import sys
import time

READY = {"serve": "/health/ready", "app": "/_stcore/health"}


def call(words):
    serves = words[:1] and words[0] in READY and "--help" not in words
    if serves:
        stop(os.environ["DOC_SERVER"], int(os.environ["CAPTUNE_PORT"]))
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(os.environ["DOC_WARM"])
    request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
    answers = connection.makefile()
    process = answers.readline().strip()
    if serves:
        with open(os.environ["DOC_SERVER"], "w") as file:
            file.write(process)
        return wait(READY[words[0]])
    return int(answers.readline() or 70)


def wait(path):
    end = time.monotonic() + 60
    while time.monotonic() < end:
        asked = http.client.HTTPConnection("127.0.0.1", int(os.environ["CAPTUNE_PORT"]), timeout=5)
        try:
            asked.request("GET", path)
            if asked.getresponse().status == 200:
                return 0
        except OSError:
            pass
        time.sleep(0.05)
    print("the server does not answer", file=sys.stderr)
    return 71


def stop(file, port):
    """End the server whose process `file` names, as Ctrl-C does, and wait until nothing listens."""
    if not os.path.exists(file):
        return
    with open(file) as known:
        process = int(known.read())
    os.remove(file)
    try:
        os.killpg(process, signal.SIGINT)
    except ProcessLookupError:
        return
    end = time.monotonic() + 20
    while listens(port):
        if time.monotonic() > end:
            raise TimeoutError(f"the server at port {port} did not stop")
        time.sleep(0.05)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    sys.exit(call(sys.argv[1:]))

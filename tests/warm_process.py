"""A process that has imported what captune imports, and runs command lines and code in copies of itself.

    python warm_process.py SOCKET TESTS

A command line of the docs costs a third of a second this way instead of three. A request is a line of
JSON with the files for stdout and stderr (for a command: stdin first) beside it. The answer to a
command, or to a script with its words, is its process id, then its exit code, or nothing where it was
killed. Other requests are answered by an empty line, and each line of code that follows by its
traceback, empty where there is none. It ends when the process with the id TESTS has ended, and removes the folder
of the socket.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import shutil
import signal
import socket
import sys
import threading
import traceback
from code import InteractiveInterpreter
from pathlib import Path
from typing import Any, NoReturn

BEFOREHAND = (
    "torch", "transformers.models.auto", "transformers.models.blip.modeling_blip", "transformers.models.bert",
    "transformers.generation", "transformers.trainer", "PIL.Image", "pyarrow", "matplotlib.figure", "fastapi",
    "captune.cli.main", "captune.training.train", "captune.training.loop.trainer", "captune.evaluation.evaluate",
    "captune.metrics", "captune.server.server", "captune.inference.captioner", "captune.jobs.job",
    "captune.library.library", "captune.export", "captune.training.build", "captune.models.vlm",
    "captune.metrics.meteor", "captune.cli.verbs.caption", "captune.cli.verbs.library", "rich.console", "rich.table",
    "tabulate", "sacrebleu.metrics.bleu", "matplotlib.backends.backend_agg",
)  # fmt: skip
_exit = os._exit


def main(address: str, tests: int) -> None:
    for name in BEFOREHAND:
        importlib.import_module(name)
    os.fsync = lambda file: None  # nothing of a test has to outlive a power cut
    gc.freeze()  # a copy that looked through all this for garbage would first have to copy its memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # copies that end leave nothing behind
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(address)
        listener.listen(16)
        listener.settimeout(1)
        while _lives(tests):  # they may be killed
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.setblocking(True)
            line, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
            if line and os.fork() == 0:  # none comes from who looks whether this listens
                listener.close()
                _answer(connection, json.loads(line), files)
            for file in files:
                os.close(file)
            connection.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def _answer(connection: socket.socket, request: dict[str, Any], files: list[int]) -> NoReturn:
    """In the copy: become what was asked for, and never return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    os.setsid()
    for number, file in enumerate(files, 3 - len(files)):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    importlib.reload(sys.modules["huggingface_hub.constants"])  # it reads the environment once
    if "words" in request:
        connection.sendall(b"%d\n" % os.getpid())
        code = 70  # of what is raised and not told
        _tell_exits(connection)
        try:
            code = _run(request["words"], request.get("script"))
        finally:
            connection.sendall(b"%d\n" % code)
    else:
        _python(connection)
    _leave()


def _leave() -> NoReturn:
    """End as Python does, but take nothing apart that was imported: that takes longer than most commands."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    _exit(0)


def _tell_exits(connection: socket.socket) -> None:
    """Of this process, where it ends at once with `os._exit`: processes that it forks tell nobody."""
    here, leave = os.getpid(), os._exit

    def told(code: int) -> NoReturn:
        if os.getpid() == here:
            connection.sendall(b"%d\n" % code)
        leave(code)

    os._exit = told


def _run(words: list[str], script: str | None) -> int:
    from captune.cli.main import main as captune

    sys.argv = [script or "captune", *words]
    if "DOC_TRACED" in os.environ:
        _trace_once(Path(os.environ["DOC_TRACED"]))
    try:
        if script is None:
            captune()
        else:
            sys.path.insert(0, str(Path(script).parent))
            runpy.run_path(script, run_name="__main__")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        sys.stdout.flush()
    return 0


def _trace_once(folder: Path) -> None:
    """Exports of a model that was exported before take its ONNX graphs from then, as in the tests of exports."""
    from captune.export import onnx

    trace = onnx.write_graph

    def write_graph(*arguments: Any, **options: Any) -> Any:
        sys.path.append(str(Path(__file__).resolve().parent))
        from exported import traced_once  # it imports onnx, which few command lines need

        return traced_once(folder, trace)(*arguments, **options)

    onnx.write_graph = write_graph


class _Session(InteractiveInterpreter):
    """Code after code in one namespace, as in a notebook; `said` is the traceback of the last, if it failed."""

    said = ""

    def showtraceback(self) -> None:
        self.said = traceback.format_exc()


def _python(connection: socket.socket) -> None:
    session = _Session({"__name__": "__main__"})
    sys.path.insert(0, "")
    connection.sendall(b"\n")
    with connection.makefile("r", encoding="utf-8") as asked:
        for line in asked:
            session.said = ""
            session.runcode(compile(json.loads(line), "block", "exec"))
            sys.stdout.flush()
            connection.sendall(json.dumps(session.said).encode() + b"\n")


if __name__ == "__main__":
    sys.path.remove(str(Path(__file__).resolve().parent))
    main(sys.argv[1], int(sys.argv[2]))

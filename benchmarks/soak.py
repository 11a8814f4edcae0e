"""Everything that strangers do to `captune serve` at once, for minutes, beside honest clients.

    python benchmarks/soak.py [--minutes 20] [--clients 16]

A server of its own: a tiny BLIP of random weights, a key for each honest client and one that strangers have got hold
of, 512 descriptors, `--allow-urls`. First the honest clients have it to themselves; then `soak_attacks.py` (large and
wrong bodies, bombs, slow images, connections that dawdle, stall or come in crowds, wrong keys, addresses within) runs
beside them for `--minutes`; then they are alone again. At the end SIGTERM comes while slow images are decoded. Linux.

An honest client sends a photo in JSON, as a form, in a batch, as a chat or as a stream, reads its answer, compares the
captions with those of the same model in this process, and pauses. It opens a connection again that was closed between
two requests, and comes again after 429 when it was told to.

What has to hold, or the status is 1 and the promises that did not are named: honest clients get 200 and 429 alone, and
no wrong caption; their 95th percentile is at most 3 times that before the attacks; the memory of the server and of its
decoders together rises by at most 0.2 MB a minute; once attackers have left there are no more descriptors than before;
SIGTERM ends the server within `--drain` and a second; none of its processes is left; each line of its log is JSON;
`/health/live`, tried twice a second, answers within 5 seconds.

Memory is sampled every second after the first ten minutes, or after half the time where that is less. Images and
bodies come and go, so the slope (Theil-Sen: the median of the slopes between all pairs) is that of the least of each
30 seconds. The attackers are one process that gives way to others, since they would have machines of their own, and
their rates are bounded (`soak_attacks.py --list`): on few cores a flood of work costs honest clients their share of
the processors, whatever the server does. What each side took of them is printed. Pairs of slow
images, which on two cores are all that the server decodes until their deadline, come every two minutes; the longest
time of an honest answer shows them. On a machine that does other work the ratio of the percentiles tells little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import psutil

from bench_serve import save, served
from machine import machine, markdown
from serve_load import Line
from soak_bodies import Target, image, slow_jpeg
from soak_clients import Honest, Question, ask_all, questions

DRAIN, DESCRIPTORS, MOST_BYTES = 5.0, 512, 4e9
RATIO, SLOPE, LEAST_SECONDS, SILENCE = 3.0, 0.2, 30.0, 5.0
# Clocks of the server that strangers' connections may run out on after their clients have gone.
SETTLE_SECONDS = 30.0
ATTACKS = Path(__file__).with_name("soak_attacks.py")


# -- the server, watched -----------------------------------------------------------------------------------------------


class Watch:
    """Samples a server and its child processes once a second, in a thread; kills it above `MOST_BYTES`."""

    def __init__(self, process: int) -> None:
        self._server = psutil.Process(process)
        self.family: set[psutil.Process] = {self._server}
        # Seconds since the start, bytes of the server, of all processes, descriptors of the server.
        self.samples: list[tuple[float, int, int, int]] = []
        self._started, self._over = time.monotonic(), threading.Event()
        threading.Thread(target=self._poll, daemon=True).start()

    def now(self) -> float:
        return time.monotonic() - self._started

    def since(self, start: float) -> list[tuple[float, int, int, int]]:
        return [sample for sample in self.samples if sample[0] >= start]

    def close(self) -> None:
        self._over.set()

    def left(self) -> list[int]:
        """Processes that were the server's and still run."""
        return [each.pid for each in self.family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    def processor(self) -> list[float]:
        """Seconds of processors so far: of the server, its decoders, attackers that have ended, honest clients."""
        times = self._server.cpu_times()
        children = [each for each in self.family if each != self._server and each.is_running()]
        decoders = times.children_user + times.children_system + sum(map(_seconds, children))
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return [times.user + times.system, decoders, ended.ru_utime + ended.ru_stime, time.process_time()]

    def _poll(self) -> None:
        while not self._over.wait(1.0):
            try:
                children = self._server.children(recursive=True)
                own, files = self._server.memory_info().rss, self._server.num_fds()
            except psutil.Error:
                return
            self.family.update(children)
            total = own + sum(map(_bytes, children))
            self.samples.append((self.now(), own, total, files))
            if total > MOST_BYTES:
                self._server.kill()


def _bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def slope(samples: Sequence[tuple[float, int]], window: float) -> float:
    """Megabytes a minute: the median of slopes between the least values of windows of some seconds."""
    least: dict[int, tuple[float, int]] = {}
    for at, size in samples:
        number = int(at / window)
        least[number] = min(least.get(number, (at, size)), (at, size), key=lambda sample: sample[1])
    slopes = [(b[1] - a[1]) / 1e6 / ((b[0] - a[0]) / 60) for a, b in combinations(least.values(), 2) if b[0] > a[0]]
    return statistics.median(slopes) if slopes else float("nan")


# -- the soak ----------------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """Promises, what was measured, and whether each held."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def add(self, promise: str, measured: str, bound: str, held: bool) -> None:
        self.rows.append((promise, measured, bound, "yes" if held else "NO"))
        if not held:
            self.broken.append(promise)

    def honest(self, seen: Honest) -> None:
        counts = ", ".join(f"{status}: {count}" for status, count in sorted(seen.statuses.items()))
        self.add("honest clients: statuses", counts, "200 and 429", set(seen.statuses) <= {"200", "429"})
        self.add("honest clients: wrong captions", str(seen.wrong), "0", seen.wrong == 0)
        for complaint in seen.complaints:
            print("  ", complaint)


def show(name: str, seen: Honest, seconds: float, processor: Sequence[float]) -> None:
    """What honest clients saw, and whose work the processors did meanwhile."""
    times = ", ".join(f"p{share:g} {1000 * seen.quantile(share / 100):.0f} ms" for share in (50, 95, 99.9))
    longest = max(seen.seconds, default=float("nan"))
    print(f"{name}: {len(seen.seconds)} answers, {times}, longest {longest:.1f} s; {dict(seen.statuses)}")
    names = ("server", "decoders", "attackers", "honest clients")
    shares = (f"{name} {each / seconds:.2f}" for name, each in zip(names, processor, strict=True))
    print(f"  processors at work: {', '.join(shares)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0, help="Length of the attacks.")
    parser.add_argument("--clients", type=int, default=16, help="Honest clients.")
    parser.add_argument("--pause", type=float, default=0.1, help="Seconds between two requests of an honest client.")
    parser.add_argument("--size", default="tiny", help="Size of the BLIP: tiny or demo.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of the model.")
    parser.add_argument("--log", help="Copy the server's log to this file.")
    parser.add_argument("--only", help="Names of attacks with commas between them (soak_attacks.py --list).")
    asked = parser.parse_args()
    print(machine("captune", "torch", "uvicorn", "pillow"), flush=True)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="captune-soak-") as folder:
        model = save(Path(folder), asked.size)
        photos = questions(model, 25)
        log = Path(folder) / "log"
        soak(asked, model, photos, log, report)
        lines(log, report)
        if asked.log:
            shutil.copyfile(log, asked.log)
    print("\n" + markdown(("promise", "measured", "allowed", "held"), report.rows))
    if report.broken:
        sys.exit("\nBroken: " + "; ".join(report.broken))


def soak(asked: argparse.Namespace, model: str, photos: list[Question], log: Path, report: Report) -> None:
    """A server, its clients and its attackers, from start to end."""
    keys = ",".join([*(f"honest-{n}=honest-{n}" for n in range(asked.clients)), "stranger=known-to-strangers"])
    flags = ("--device", "cpu", "--precision", "fp32", "--quiet", "--allow-urls", "--drain", f"{DRAIN:g}")
    command = ("-m", "captune", "serve", "--model", model, "--port", "{port}", *flags)
    seconds = 60 * asked.minutes

    def alone(name: str, length: float) -> Honest:
        return measured(name, ask_all(port, asked.clients, photos, length, asked.pause))[0]

    def measured(name: str, phase: Coroutine[Any, Any, Any]) -> tuple[Honest, Any]:
        begun, before = watch.now(), watch.processor()
        found = asyncio.run(phase)
        seen, rest = found if isinstance(found, tuple) else (found, None)
        used = [b - a for a, b in zip(before, watch.processor(), strict=True)]
        show(name, seen, watch.now() - begun, used)
        return seen, rest

    with (
        log.open("wb") as stderr,
        served(
            *command,
            threads=asked.threads,
            environment={"CAPTUNE_API_KEYS": keys},
            log=stderr,
            before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
        ) as (server, port),
    ):
        watch = Watch(server.pid)
        alone("everything once, before counting", 5)
        begun = watch.now()
        idle = alone("alone", min(60.0, max(15.0, seconds / 10)))
        before = max(sample[3] for sample in watch.since(begun))
        begun = watch.now()
        seen, strangers = measured("attacked", attacked(port, seconds, asked, photos))
        samples = watch.since(begun + min(600.0, seconds / 2))
        tell(strangers)
        silence = strangers["silence"]
        report.add("/health/live: longest time", f"{silence:.1f} s", f"{SILENCE:g} s", silence <= SILENCE)
        time.sleep(SETTLE_SECONDS)
        begun = watch.now()
        alone("alone again", 15)
        report.honest(seen)
        ratio = seen.quantile(0.95) / idle.quantile(0.95)
        report.add(
            "honest clients: 95th percentile",
            f"{1000 * seen.quantile(0.95):.0f} ms, {ratio:.1f} × {1000 * idle.quantile(0.95):.0f} ms",
            f"{RATIO:g} ×",
            ratio <= RATIO,
        )
        memory(samples, watch, seconds, report)
        after = min((sample[3] for sample in watch.since(begun)), default=before + 1)
        report.add("descriptors after the attacks", f"{after}, before {before}", "as before", after <= before)
        stopped(server, watch, port, report)


async def attacked(
    port: int, seconds: float, asked: argparse.Namespace, photos: list[Question]
) -> tuple[Honest, dict[str, Any]]:
    """What honest clients see beside attackers, and what those see."""
    more = ("--only", asked.only) if asked.only else ()
    attackers = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ATTACKS), "--port", str(port), "--key", "known-to-strangers"),
        *("--seconds", f"{seconds:g}", *more),
        stdout=subprocess.PIPE,
        limit=1 << 20,
    )
    assert attackers.stdout is not None
    try:
        await attackers.stdout.readline()
        seen = await ask_all(port, asked.clients, photos, seconds, asked.pause)
        async with asyncio.timeout(120):
            return seen, json.loads(await attackers.stdout.readline())
    finally:
        try:
            await asyncio.wait_for(attackers.wait(), 10)
        except TimeoutError:
            attackers.kill()
            await attackers.wait()


def tell(strangers: dict[str, Any]) -> None:
    """What became of the attacks."""
    print()
    rows = [
        (name, ", ".join(f"{word}: {count}" for word, count in sorted(seen.items())))
        for name, seen in strangers["attacks"].items()
    ]
    print(markdown(("attack", "answers"), rows) + "\n", flush=True)


def memory(samples: list[tuple[float, int, int, int]], watch: Watch, seconds: float, report: Report) -> None:
    window = min(LEAST_SECONDS, max(5.0, seconds / 20))
    rises = [slope([(sample[0], sample[index]) for sample in samples], window) for index in (2, 1)]
    most = max(sample[2] for sample in watch.samples) / 1e6
    own = [sample[1] / 1e6 for sample in samples]
    report.add(
        "memory, server and decoders",
        f"{rises[0]:+.2f} MB a minute (the server alone {rises[1]:+.2f}, {min(own):.0f} to {max(own):.0f} MB); "
        f"at most {most:.0f} MB",
        f"{SLOPE:g} MB a minute",
        rises[0] <= SLOPE,
    )


def stopped(server: subprocess.Popen[bytes], watch: Watch, port: int, report: Report) -> None:
    """SIGTERM while every decoder works on a slow image."""
    slow = image(slow_jpeg())(Target(port, "known-to-strangers"))

    async def send() -> float:
        lines = [Line(port) for _ in range(4)]
        for line in lines:
            await line.send(slow)
        await asyncio.sleep(1.5)
        started = time.monotonic()
        server.send_signal(signal.SIGTERM)
        while server.poll() is None and time.monotonic() - started < 60:
            await asyncio.sleep(0.02)
        for line in lines:
            line.close()
        return time.monotonic() - started

    took = asyncio.run(send())
    report.add("SIGTERM while slow images are decoded", f"{took:.2f} s", f"{DRAIN + 1:g} s", took <= DRAIN + 1)
    time.sleep(1)
    watch.close()
    left = watch.left()
    report.add("processes left", ", ".join(map(str, left)) or f"none of {len(watch.family)}", "none", not left)


def lines(log: Path, report: Report) -> None:
    """Each line of the log is JSON."""
    bad, events = [], Counter[str]()
    for line in log.read_bytes().splitlines():
        try:
            said = json.loads(line)
            events[f"{said['event']} {said.get('status', '')}".strip()] += 1
        except (ValueError, KeyError, TypeError):
            bad.append(line[:200].decode("utf-8", "replace"))
    print("\nlog: " + ", ".join(f"{event}: {count}" for event, count in events.most_common(20)))
    for line in bad[:5]:
        print("  no JSON:", line)
    size = log.stat().st_size / 1e6
    report.add("the log", f"{sum(events.values())} lines, {size:.1f} MB, {len(bad)} no JSON", "JSON alone", not bad)


if __name__ == "__main__":
    main()

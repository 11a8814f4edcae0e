"""The models that are served: loaded when asked for, within a limit of memory."""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from captune.core.config import Resolved
from captune.core.errors import CaptuneError, did_you_mean
from captune.core.options import DEFAULT_MATCHER, DEFAULT_MODEL, CaptionOptions
from captune.core.options.verbs import config_of
from captune.inference.captioner import Captioner
from captune.inference.loading import family_of, weights_on_disk
from captune.server.model_worker import ModelWorker
from captune.server.problems import Problem

# Where another model waits for memory, those in use take requests for a turn: at least so many seconds, or as long as
# loading took, but no more than a share of the time-out. Then new requests wait, for at most another share of it.
_TURN_SECONDS, _TURN_SHARE, _PAUSE_SHARE = 1.0, 1 / 8, 1 / 4
MATCHER, VQA = "matcher", "blip-vqa"
# Without a chat template, but what they read is a question or an instruction.
ASKED_FAMILIES = (VQA, "florence2")


@dataclass
class ServedModel:
    """A model by the name that clients use, its `worker` while it is loaded, and the number of requests (`users`).

    `used` and `loaded` are times of `time.monotonic`, `loading` the seconds that loading it took.
    """

    name: str
    source: str
    created: int = field(default_factory=lambda: int(time.time()))
    family: str = ""
    worker: ModelWorker | None = None
    users: int = 0
    weights: int = 0
    used: float = 0.0
    loaded: float = 0.0
    loading: float = 0.0


class ModelPool:
    """Models by name, loaded when requests need them, within a limit of memory; one in use is not unloaded.

    `on_batch(name, images)` and `on_load(name, seconds)` are called after each; `load` replaces how models are loaded.
    """

    def __init__(
        self,
        models: Mapping[str, str],
        config: Resolved,
        *,
        on_batch: Callable[[str, int], None] = lambda name, size: None,
        on_load: Callable[[str, float], None] = lambda name, seconds: None,
        load: Callable[[ServedModel], Any] | None = None,
    ) -> None:
        self.models = {name: ServedModel(name, source) for name, source in models.items()}
        self.ready = False
        self._config, self._serve = config, config.values.serve
        self._on_batch, self._on_load = on_batch, on_load
        self._loading = asyncio.Lock()
        self._identified = asyncio.Event()
        self._released = asyncio.Event()
        # Not set while another model waits for the room of those in use.
        self._admitting = asyncio.Event()
        self._admitting.set()
        self._load_model = load or self._load_source

    async def start(self) -> None:
        """Find out what each model is, and load those that fit; raises `CaptuneError` where one cannot be loaded."""
        async with self._loading:
            for model in self.models.values():
                model.family = await asyncio.to_thread(family_of, model.source)
                model.weights = await asyncio.to_thread(weights_on_disk, model.source)
            self._identified.set()
            for model in self.models.values():
                if not self._limit or self._loaded_bytes + model.weights <= self._limit:
                    await self._load(model)
            if not any(model.worker for model in self.models.values()):
                raise CaptuneError(
                    f"No model fits into --memory {self._serve.memory:g} GB.", "Raise it, or leave it out."
                )
        self.ready = True

    async def close(self) -> None:
        """Unload all models."""
        for model in self.models.values():
            await self._unload(model)

    async def select(self, name: str | None, task: str) -> ServedModel:
        """The model that a request for a task (`caption`, `ask`, `match`) means; raises `Problem`.

        Waits until `start` knows what the models are: a request may come before.
        """
        await self._identified.wait()
        fitting = [m for m in self.models.values() if (m.family == MATCHER) == (task == "match")]
        if name is not None:
            if name not in self.models:
                raise Problem(404, f"There is no model '{name[:100]}'.", did_you_mean(name[:100], self.models))
            if self.models[name] not in fitting:
                what = "a matcher" if self.models[name].family == MATCHER else "no matcher"
                known = ", ".join(model.name for model in fitting) or "none here"
                raise Problem(422, f"The model '{name}' is {what}.", f"Models for this: {known}.")
            return self.models[name]
        if not fitting:
            which = DEFAULT_MATCHER if task == "match" else DEFAULT_MODEL
            raise Problem(404, "No model here does that.", f"Start the server with --model {which} as well.")
        first = [m for m in fitting if (m.family == VQA) == (task == "ask")]
        return (first or fitting)[0]

    @asynccontextmanager
    async def use(self, model: ServedModel) -> AsyncIterator[ModelWorker]:
        """Keep a model loaded inside the block; waits for memory, and its turn. Raises `Problem` (503)."""
        while model.worker is not None and not self._admitting.is_set():
            await self._admitting.wait()
        if model.worker is None:
            async with self._loading:
                if model.worker is None:
                    await self._evict_for(model)
                    try:
                        await self._load(model)
                    except CaptuneError as error:
                        raise Problem(503, error.message, error.hint) from error
                model.users += 1
        else:
            model.users += 1
        assert model.worker is not None
        try:
            yield model.worker
        finally:
            model.users -= 1
            model.used = time.monotonic()
            self._released.set()

    @property
    def _limit(self) -> int:
        return int(self._serve.memory * 1e9)

    @property
    def _loaded_bytes(self) -> int:
        return sum(model.weights for model in self.models.values() if model.worker)

    async def _evict_for(self, needed: ServedModel) -> None:
        """Unload unused models, the longest unused first, until `needed` fits.

        Where all are in use it waits: in turns the others take requests, in pauses they take none.
        """
        if not self._limit:
            return
        timeout = self._serve.timeout
        if needed.weights > self._limit:
            raise Problem(503, f"The model '{needed.name}' does not fit into the server's memory.", "Raise --memory.")
        loaded = [model for model in self.models.values() if model.worker]
        took = max((model.loading for model in loaded), default=0.0)
        turn, pause = min(max(_TURN_SECONDS, took), timeout * _TURN_SHARE), timeout * _PAUSE_SHARE
        since = max(min((model.loaded for model in loaded), default=0.0), time.monotonic() - turn)
        try:
            while self._loaded_bytes + needed.weights > self._limit:
                idle = [model for model in self.models.values() if model.worker and not model.users]
                if idle:
                    await self._unload(min(idle, key=lambda model: model.used))
                    continue
                self._released.clear()
                at = (time.monotonic() - since) % (turn + pause)
                if at < turn:
                    self._admitting.set()
                else:
                    self._admitting.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout((turn if at < turn else turn + pause) - at):
                        await self._released.wait()
        finally:
            self._admitting.set()

    async def _load(self, model: ServedModel) -> None:
        started = time.perf_counter()
        loaded = await asyncio.to_thread(self._load_model, model)
        worker = ModelWorker(
            loaded,
            max_batch=self._serve.max_batch,
            max_wait=self._serve.max_wait / 1000,
            name=model.name,
            translator=self._config.values.translation.translator,
            on_batch=lambda size: self._on_batch(model.name, size),
        )
        model.worker, model.weights, model.used = worker, worker.weights, time.monotonic()
        model.loaded, model.loading = model.used, time.perf_counter() - started
        self._on_load(model.name, model.loading)

    def _load_source(self, model: ServedModel) -> Any:
        given, run_on = self._config.values, self._config.values.run_on
        if model.family == MATCHER:
            from captune.models.matcher import load_matcher

            return load_matcher(model.source, run_on.device)
        caption = CaptionOptions(max_pixels=self._serve.max_pixels)
        values = config_of("caption")(
            caption=caption, generation=given.generation, run_on=run_on, endpoint=given.endpoint
        )
        return Captioner.load(model.source, config=Resolved(values, self._config.sources))

    async def _unload(self, model: ServedModel) -> None:
        if model.worker is None:
            return
        worker, model.worker = model.worker, None
        await worker.close()
        del worker
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

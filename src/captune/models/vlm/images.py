"""Images as a language model reads them: prepared in their own aspect, encoded once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PreparedImage:
    """What an image processor makes of an image: tensors, and the text that stands for the image in a prompt."""

    tensors: dict[str, Tensor]
    text: str


def prepare(processor: Any, image: Any) -> PreparedImage:
    """One RGB image, as the checkpoint's own image processor prepares it."""
    settings = processor._merge_kwargs(tokenizer_init_kwargs=processor.tokenizer.init_kwargs, return_tensors="pt")
    processed, (text,) = processor._process_images([[image]], **settings["images_kwargs"])
    return PreparedImage({name: value for name, value in processed.items() if isinstance(value, Tensor)}, text)


def encode_images(model: Any, processor: Any, images: Sequence[Any]) -> EncodedImages:
    """RGB images of any sizes through the vision part and the projector of a model; prepared in threads."""
    with ThreadPoolExecutor(min(len(images), torch.get_num_threads())) as pool:
        return encode_prepared(model, list(pool.map(partial(prepare, processor), images)))


def encode_prepared(model: Any, prepared: Sequence[PreparedImage]) -> EncodedImages:
    """The same of images that are prepared."""
    features, forward = keywords(model.model.get_image_features), keywords(model.forward)
    weight = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    tensors = [
        {name: value.to(weight.device, weight.dtype if value.is_floating_point() else None) for name, value in each}
        for each in (image.tensors.items() for image in prepared)
    ]
    pixels = [{name: value for name, value in one.items() if name in features} for one in tensors]
    others = [name for name in tensors[0] if name in forward and not name.startswith("pixel_")]
    return EncodedImages(
        tuple(_outputs(model, pixels)),
        tuple(image.text.strip() for image in prepared),
        {name: tuple(one[name] for one in tensors) for name in others},
    )


def _outputs(model: Any, images: list[dict[str, Tensor]]) -> list[Any]:
    """Outputs of the vision part and the projector for each image; of all at once where their tensors fit."""
    trailing = {tuple((name, value.shape[1:]) for name, value in image.items()) for image in images}
    if len(images) > 1 and len(trailing) == 1:
        joined = {name: torch.cat([image[name] for image in images]) for name in images[0]}
        found = model.model.get_image_features(**joined, return_dict=True)
        if len(found.pooler_output) == len(images):
            return [_changed(found, partial(_one, number=number)) for number in range(len(images))]
    return [model.model.get_image_features(**image, return_dict=True) for image in images]


def keywords(function: Any) -> frozenset[str]:
    """The names of a function's parameters."""
    return frozenset(inspect.signature(function).parameters)


@dataclass(frozen=True)
class EncodedImages:
    """Images as a language model reads them; each value has an entry for every image.

    `outputs` are those of `get_image_features`, `texts` what stands for an image in a prompt, and `inputs` what else
    the language model is told of it (such as the grid of its patches).
    """

    outputs: tuple[Any, ...]
    texts: tuple[str, ...]
    inputs: Mapping[str, tuple[Tensor, ...]]

    def __len__(self) -> int:
        return len(self.outputs)

    def __getitem__(self, chosen: Sequence[int] | Tensor | slice) -> EncodedImages:
        numbers = range(len(self))[chosen] if isinstance(chosen, slice) else [int(number) for number in chosen]
        return EncodedImages(
            tuple(self.outputs[n] for n in numbers),
            tuple(self.texts[n] for n in numbers),
            {name: tuple(values[n] for n in numbers) for name, values in self.inputs.items()},
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Images, tokens of the longest, width of a token."""
        rows = [_rows_of(output.pooler_output) for output in self.outputs]
        return len(self), max(rows), _first_tensor(self.outputs[0].pooler_output).shape[-1]

    @property
    def device(self) -> torch.device:
        return _first_tensor(self.outputs[0].pooler_output).device

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def to(self, dtype: torch.dtype) -> EncodedImages:
        """Themselves: the language model turns features into its own type."""
        return self

    def detach(self) -> EncodedImages:
        """The same without gradients."""
        return EncodedImages(tuple(_changed(output, _detached) for output in self.outputs), self.texts, self.inputs)

    def joined(self) -> dict[str, Any]:
        """As `mm_encoder_outputs` of the model."""
        first = self.outputs[0]
        values = {"pooler_output": _cat([output.pooler_output for output in self.outputs]), **shared_features(first)}
        layers = getattr(first, "deepstack_features", None)
        if layers is not None:
            values["deepstack_features"] = [
                _cat([output.deepstack_features[layer] for output in self.outputs]) for layer in range(len(layers))
            ]
        return {"image": type(first)(**values)}


def _first_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else _first_tensor(value[0])


def _rows_of(features: Any) -> int:
    """How many tokens there are in features: a tensor (…, tokens, width), or a list of such."""
    return features[..., 0].numel() if isinstance(features, Tensor) else sum(_rows_of(one) for one in features)


def _cat(parts: Sequence[Any]) -> Any:
    return torch.cat(list(parts)) if isinstance(parts[0], Tensor) else [one for part in parts for one in part]


def _changed(output: Any, change: Callable[[Any], Any]) -> Any:
    """An output whose features, over images and over layers and images, are changed."""
    layers = getattr(output, "deepstack_features", None)
    deep = {} if layers is None else {"deepstack_features": [change(layer) for layer in layers]}
    return type(output)(pooler_output=change(output.pooler_output), **deep, **shared_features(output))


def shared_features(output: Any) -> dict[str, Any]:
    """What an output holds that is the same of every image."""
    return {name: output[name] for name in ("visual_indicator_features",) if name in output}


def _one(features: Any, number: int) -> Any:
    return features[number : number + 1]


def _detached(features: Any) -> Any:
    return features.detach() if isinstance(features, Tensor) else [_detached(one) for one in features]

"""How many tokens an image takes in a vision-language model, and how its image processor is set to make fewer."""

from collections.abc import Iterator
from math import isqrt
from typing import Any

from PIL import Image

from captune.core.errors import UsageError
from captune.models.vlm.images import prepare

# Where a checkpoint takes images of nearly any size, more than this is not worth its time for a caption.
DEFAULT_MOST = 1280
# Large images of several aspects: as many tokens as an image can have.
PROBES = ((1600, 1600), (2400, 800), (800, 2400))


def count_tokens(processor: Any, image: Any) -> int:
    """Tokens of an RGB image in a prompt, those that mark its begin, rows and end included."""
    text = prepare(processor, image).text.strip()
    return len(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def most_tokens(processor: Any) -> int:
    """Tokens of the largest image."""
    area = _area(processor.image_processor)
    if area:
        return int(processor.image_processor.size["longest_edge"]) // area
    return max(count_tokens(processor, Image.new("RGB", size)) for size in PROBES)


def limit_tokens(processor: Any, most: int) -> None:
    """Set a processor so that no image takes more than `most` tokens; it is saved with the model.

    Only an image that is more than `most` times as long as wide may take more. Raises `UsageError` where images of
    this model take more whatever is set.
    """
    least = most_tokens(processor)
    if least <= most:
        return
    for _ in _settings(processor, most):
        least = most_tokens(processor)
        if least <= most:
            return
    raise UsageError(
        f"An image takes at least {least:,} tokens in this model.",
        f"Set --image-tokens to {least} or more, or take a model that reads images in fewer tokens.",
    )


def limit_by_default(processor: Any) -> None:
    """The same with `DEFAULT_MOST` for kinds of models whose images may have nearly any size."""
    if _area(processor.image_processor) or _longest_edge(processor.image_processor):
        limit_tokens(processor, DEFAULT_MOST)


def _settings(processor: Any, most: int) -> Iterator[None]:
    """Set the image processor to make ever fewer tokens, `most` at first."""
    images = processor.image_processor
    if area := _area(images):
        longest = max(1, most) * area
        images.size = {"shortest_edge": min(images.size["shortest_edge"], longest), "longest_edge": longest}
        yield
    elif edge := _longest_edge(images):
        for side in range(isqrt(most), 0, -1):
            images.size = {"longest_edge": side * edge * getattr(processor, "spatial_merge_size", 1)}
            yield
    elif hasattr(images, "max_image_size"):  # tiles, and the whole image as one more
        tile = images.max_image_size["longest_edge"]
        for side in range(min(images.size["longest_edge"] // tile, isqrt(most)), 0, -1):
            images.size = {"longest_edge": side * tile}
            yield
        images.do_image_splitting = False
        yield
    elif getattr(images, "image_grid_pinpoints", None):
        grids = images.image_grid_pinpoints
        areas = sorted({height * width for height, width in grids})
        images.image_grid_pinpoints = [grid for grid in grids if grid[0] * grid[1] == areas[0]]
        of_smallest = most_tokens(processor)
        for area in reversed([area for area in areas if area // areas[0] <= max(1, 2 * most // of_smallest)]):
            images.image_grid_pinpoints = [grid for grid in grids if grid[0] * grid[1] <= area]
            yield
    elif hasattr(images, "max_patches"):
        most_patches, images.min_patches, images.max_patches = images.max_patches, 1, 1
        of_one = count_tokens(processor, Image.new("RGB", PROBES[0]))
        for patches in range(max(1, min(most_patches - 1, most // of_one)), 0, -1):
            images.max_patches = patches
            yield


def _area(images: Any) -> int:
    """Pixels of a token where the size of an image is its area (Qwen-VL and its like), else 0."""
    size = dict(images.size or {})
    if not {"shortest_edge", "longest_edge"} <= set(size) or not hasattr(images, "merge_size"):
        return 0
    return int((images.patch_size * images.merge_size) ** 2)


def _longest_edge(images: Any) -> int:
    """Side of a patch where an image of any aspect has a longest edge (Pixtral), else 0."""
    patch = getattr(images, "patch_size", None)
    if set(dict(images.size or {})) != {"longest_edge"} or hasattr(images, "max_image_size") or not patch:
        return 0
    return int(patch["height"] if isinstance(patch, dict) or hasattr(patch, "height") else patch)

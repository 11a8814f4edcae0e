"""Processors whose classes in `transformers` want packages that images alone do not need: torchvision, num2words."""

from typing import Any

from transformers import SmolVLMProcessor as SmolVLM
from transformers.processing_utils import ProcessorMixin


class PixtralProcessor(ProcessorMixin):
    """Of Mistral 3 and Pixtral: a token for each square of patches, one that ends each line of them, and a last one."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: str | None = None,
        image_token: str = "[IMG]",
        image_break_token: str = "[IMG_BREAK]",
        image_end_token: str = "[IMG_END]",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.patch_size, self.spatial_merge_size = patch_size, spatial_merge_size
        self.image_token, self.image_break_token = image_token, image_break_token
        self.image_end_token = image_end_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)

    @property
    def image_token_ids(self) -> list[int]:
        """Of all three tokens: what no caption holds."""
        tokens = [self.image_token, self.image_break_token, self.image_end_token]
        return list(self.tokenizer.convert_tokens_to_ids(tokens))

    def _process_images(self, images: Any, **settings: Any) -> Any:
        return super()._process_images(images, **{**settings, "patch_size": self._side})

    @property
    def _side(self) -> int:
        """Pixels that a token stands for, each way."""
        return self.patch_size * self.spatial_merge_size

    def replace_image_token(self, image_inputs: Any, image_idx: int, **settings: Any) -> str:
        """The text in the place of an image, whose prepared size is in `image_inputs`."""
        height, width = (int(pixels) // self._side for pixels in image_inputs["image_sizes"][image_idx])
        line = self.image_token * width
        return self.image_break_token.join([line] * height) + self.image_end_token


class SmolVLMProcessor(SmolVLM):
    """Of SmolVLM, for images alone: num2words spells the number of a film's frames."""

    def __init__(
        self,
        image_processor: Any,
        tokenizer: Any,
        video_processor: Any,
        image_seq_len: int = 169,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        try:
            super().__init__(image_processor, tokenizer, video_processor, image_seq_len, chat_template, **kwargs)
        except ImportError:  # where it is missing; all that images need is set by then, but what every processor has
            ProcessorMixin.__init__(
                self, image_processor, tokenizer, video_processor, chat_template=chat_template, **kwargs
            )


PROCESSORS: dict[str, Any] = {kind.__name__: kind for kind in (PixtralProcessor, SmolVLMProcessor)}

"""BLIP base at 384 pixels, random weights: captune's captions and gradients are plain transformers'."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captune.core.options import GenerationOptions
from captune.inference.batches import collate
from captune.models.backbone import Encoded, PixelSettings
from captune.models.blip import Blip
from captune.models.from_scratch import learn_tokenizer
from captune.models.generate import search_tokens

LAYERS = 4
TEXT = "a man in red rides the small brown horse along wet sand while two dogs run behind him near blue water"


@pytest.fixture(scope="module")
def blip() -> Blip:
    """BlipConfig's own numbers for base, but 4 of the 12 layers, which are all alike; its vision weights let the image
    through (trap: 1e-10)."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    torch.manual_seed(0)
    config = BlipConfig(
        vision_config={"initializer_range": 0.02, "num_hidden_layers": LAYERS},
        text_config={
            "num_attention_heads": 12,
            "num_hidden_layers": LAYERS,
            "bos_token_id": 30522,
            "sep_token_id": 102,
            "pad_token_id": 0,
        },
    )
    model = BlipForConditionalGeneration(config).eval()
    with torch.no_grad():  # the end token fires now and then, so that captions end at different lengths
        model.text_decoder.cls.predictions.bias[102] += 1.2
        for layer in model.text_decoder.bert.encoder.layer:
            layer.crossattention.output.dense.weight *= 8
    tokenizer = learn_tokenizer([TEXT] * 4, 200)
    return Blip(model, tokenizer, PixelSettings(384, mean=(0.5,) * 3, std=(0.5,) * 3))


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(2, 3, 384, 384, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "options", "plain"),
    [
        ([], {"num_beams": 1, "max_new_tokens": 12}, {"num_beams": 1, "do_sample": False, "max_new_tokens": 12}),
        (
            [1037, 3861, 1997],
            {"num_beams": 5, "no_repeat_ngram_size": 2, "repetition_penalty": 1.05, "max_new_tokens": 12},
            {
                "num_beams": 5,
                "do_sample": False,
                "no_repeat_ngram_size": 2,
                "repetition_penalty": 1.05,
                "length_penalty": 1.0,
                "max_new_tokens": 12,
            },
        ),
    ],
    ids=["greedy", "five beams with penalties behind a prompt"],
)
def test_captions_equal_plain_generate(
    blip: Blip, pixels: torch.Tensor, prompt: list[int], options: dict, plain: dict
) -> None:
    with torch.inference_mode():
        before = torch.tensor([[blip.bos_token_id, *prompt]] * len(pixels))
        assert blip.text_decoder() is not None
        found = search_tokens(blip, blip.encode(pixels), before, GenerationOptions(**options))
        given = torch.tensor([[101, *prompt, 102]]).repeat(2, 1) if prompt else None
        theirs = blip.model.generate(pixel_values=pixels, input_ids=given, **plain)
    ours = [row[:n] for row, n in zip(found.tokens[:, 0].tolist(), found.lengths[:, 0].tolist(), strict=True)]
    for mine, plain_row in zip(ours, theirs[:, 1 + len(prompt) :].tolist(), strict=True):
        assert mine == plain_row[: len(mine)]
        assert set(plain_row[len(mine) :]) <= {blip.eos_token_id, blip.pad_token_id}
    assert ours[0] != ours[1], "both images have one caption: the test shows nothing"


@pytest.mark.slow
@pytest.mark.parametrize("per_picture", [[1] * 3, [4], [2, 1, 3]], ids=["3 pictures", "4 captions", "ragged"])
def test_gradients_equal_plain_forward(blip: Blip, per_picture: list[int]) -> None:
    generator = torch.Generator().manual_seed(2)
    captions = [
        [Encoded((30522, *torch.randint(1000, 30000, (5 + (i + j) % 6,), generator=generator).tolist(), 102), 1)
         for j in range(count)]
        for i, count in enumerate(per_picture)
    ]  # fmt: skip
    # What the vision part says is the test above's; here anything will do.
    memory = torch.randn(len(per_picture), 577, 768, generator=generator)
    batch = collate([(np.zeros((3, 1, 1), np.uint8), each) for each in captions])
    model = blip.model
    model.zero_grad(set_to_none=True)
    blip.freeze(["vision"])

    losses = blip.token_losses(memory, *(batch[k] for k in ("tokens", "lengths", "owner", "given")))
    losses.nll.mean().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    mask = torch.arange(batch["tokens"].shape[1]) < batch["lengths"][:, None]
    labels = batch["tokens"].masked_fill(~mask, -100)
    plain = model.text_decoder(
        input_ids=batch["tokens"],
        attention_mask=mask.long(),
        encoder_hidden_states=memory[batch["owner"]],
        labels=labels,
    )
    plain.loss.backward()
    theirs = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    assert ours.keys() == theirs.keys()
    assert losses.nll.mean().item() == pytest.approx(plain.loss.item(), rel=1e-6)
    difference = sum(float((ours[n] - theirs[n]).double().square().sum()) for n in ours) ** 0.5
    size = sum(float(theirs[n].double().square().sum()) for n in ours) ** 0.5
    assert difference / size < 1e-5
    for name, gradient in theirs.items():
        # gradients far below the others' size (as the keys' biases, whose true gradient is zero) are rounding alone
        assert (ours[name] - gradient).norm() < 1e-5 * gradient.norm() + 1e-7 * size, name

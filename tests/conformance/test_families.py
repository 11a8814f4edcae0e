"""What every model family promises, through its tiny instance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.inference.batches import collate
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.models.generate import generate

REFERENCES = [["a red circle", "two dogs play"], ["a man on a bike ."], ["two dogs", "a man", "a circle on a bike"]]
GREEDY = GenerationOptions(num_beams=1, max_new_tokens=8)


@pytest.fixture(params=sorted(FAMILIES))
def backbone(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    made = FAMILIES[request.param].tiny()
    with torch.no_grad():  # larger weights, so that images and words matter
        for parameter in made.model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
    made.model.eval()
    return made


def pixels(backbone: Backbone, count: int) -> torch.Tensor:
    side = backbone.pixels.size or 32
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def batch_of(backbone: Backbone, values: torch.Tensor, references: list[list[str]]) -> dict[str, torch.Tensor]:
    encoded = [[backbone.encode_reference(text, 20) for text in texts] for texts in references]
    return collate(list(zip(values.numpy(), encoded, strict=True)), backbone.pad_token_id)


def losses(backbone: Backbone, batch: dict[str, torch.Tensor], **options: float) -> tuple[torch.Tensor, torch.Tensor]:
    found = backbone.token_losses(
        backbone.image_features(batch["images"]),
        batch["tokens"],
        batch["lengths"],
        batch["owner"],
        batch["given"],
        **options,
    )
    return found.nll, found.objective


def test_ten_steps_lower_a_finite_loss(backbone: Backbone) -> None:
    batch = batch_of(backbone, pixels(backbone, 3), REFERENCES)
    optimizer = torch.optim.AdamW(backbone.model.parameters(), lr=1e-3)
    seen = []
    for _ in range(10):
        nll, _ = losses(backbone, batch)
        nll.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(nll.mean().item())
    assert np.isfinite(seen).all()
    assert seen[-1] < seen[0]


def test_grouped_captions_have_the_same_losses_as_single_ones(backbone: Backbone) -> None:
    values = pixels(backbone, 3)
    together, _ = losses(backbone, batch_of(backbone, values, REFERENCES))
    alone = [
        losses(backbone, batch_of(backbone, values[i : i + 1], [[text]]))[0]
        for i, texts in enumerate(REFERENCES)
        for text in texts
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_only_the_caption_and_its_end_are_supervised(backbone: Backbone) -> None:
    backbone.prompt = "a man"
    encoded = backbone.encode_reference("two dogs play", 20)
    assert encoded.tokens[-1] == backbone.eos_token_id
    assert list(encoded.tokens[: encoded.prompt_length]) == backbone.codec.start("a man")
    nll, _ = losses(backbone, batch_of(backbone, pixels(backbone, 1), [["two dogs play"]]))
    assert len(nll) == len(backbone.tokenize("two dogs play")) + 1


@pytest.mark.parametrize(("family", "size"), [*((name, "tiny") for name in sorted(FAMILIES)), ("blip-2", "tiny-t5")])
def test_a_batch_without_targets_has_a_gradient_of_zero(family: str, size: str) -> None:
    """As by a process that only keeps the others company: no loss, and a gradient of zero."""
    made = FAMILIES[family].new(size, REFERENCES[0])
    batch = batch_of(made, pixels(made, 1), [["two dogs play"]])
    nll, _ = losses(made, {**batch, "given": batch["lengths"]})
    assert len(nll) == 0
    nll.sum().backward()
    assert {float(p.grad.abs().sum()) for p in made.parts()["text"] if p.grad is not None} == {0.0}


def test_a_long_reference_is_cut_but_ends(backbone: Backbone) -> None:
    encoded = backbone.encode_reference("a man on a bike " * 50, 6)
    assert len(encoded.tokens) == len(backbone.codec.start("")) + 6 + 1
    assert encoded.tokens[-1] == backbone.eos_token_id
    assert len(backbone.encode_reference("a man on a bike " * 500, 10_000).tokens) == backbone.max_length


def test_smoothing_changes_the_objective_not_the_loss(backbone: Backbone) -> None:
    batch = batch_of(backbone, pixels(backbone, 3), REFERENCES)
    plain, same = losses(backbone, batch)
    torch.testing.assert_close(plain, same)
    nll, objective = losses(backbone, batch, label_smoothing=0.1)
    torch.testing.assert_close(nll, plain)
    assert not torch.allclose(objective, plain)


def test_dropout_takes_effect_after_loading_and_is_saved(backbone: Backbone, tmp_path: Path) -> None:
    batch = batch_of(backbone, pixels(backbone, 3), REFERENCES)
    backbone.set_dropout(0.5)
    backbone.model.train()
    assert not torch.allclose(losses(backbone, batch)[0], losses(backbone, batch)[0])
    backbone.save(tmp_path / "m")
    again = type(backbone).load(tmp_path / "m")
    again.model.train()
    assert not torch.allclose(losses(again, batch)[0], losses(again, batch)[0])


def test_save_and_reload_caption_alike(backbone: Backbone, tmp_path: Path) -> None:
    backbone.prompt, backbone.generation = "two dogs", {"num_beams": 2}
    backbone.save(tmp_path / "m")
    again = type(backbone).load(tmp_path / "m")
    again.model.eval()
    values = pixels(backbone, 3)
    with torch.inference_mode():
        before = generate(backbone, backbone.image_features(values), GREEDY)
        after = generate(again, again.image_features(values), GREEDY)
    assert before == after
    assert (again.prompt, again.generation, again.pixels.size) == ("two dogs", {"num_beams": 2}, backbone.pixels.size)


def test_saved_weights_are_as_readable_as_their_folder(backbone: Backbone, tmp_path: Path) -> None:
    # A run of one user is served by another one: a container's.
    backbone.save(tmp_path / "saved")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert [name for name in modes if name.endswith(".safetensors")]
    assert len(set(modes.values())) == 1, modes


@pytest.mark.parametrize("frozen", [["vision"], ["bridge"], ["text"], ["vision", "text"]])
def test_frozen_parts_do_not_change(backbone: Backbone, frozen: list[str]) -> None:
    backbone.freeze(frozen)
    before = {name: [p.detach().clone() for p in part] for name, part in backbone.parts().items()}
    nll, _ = losses(backbone, batch_of(backbone, pixels(backbone, 3), REFERENCES))
    nll.mean().backward()
    learning = [p for p in backbone.model.parameters() if p.requires_grad]
    torch.optim.AdamW(learning, lr=1e-2, weight_decay=0.1).step()
    for name, part in backbone.parts().items():
        moved = any(not torch.equal(new, old) for new, old in zip(part, before[name], strict=True))
        assert moved == (name not in frozen), name


def test_every_parameter_is_in_exactly_one_part(backbone: Backbone) -> None:
    listed = [id(p) for part in backbone.parts().values() for p in part]
    assert sorted(listed) == sorted(id(p) for p in backbone.model.parameters())
    assert all(part for part in backbone.parts().values())


def test_freezing_all_parts_or_an_unknown_part_is_refused(backbone: Backbone) -> None:
    with pytest.raises(UsageError, match="nothing would learn"):
        backbone.freeze(["vision", "bridge", "text"])
    with pytest.raises(UsageError, match="vison"):
        backbone.freeze(["vison"])


@pytest.mark.parametrize(
    "options",
    [
        GREEDY,
        GenerationOptions(num_beams=3, max_new_tokens=8),
        GenerationOptions(num_beams=3, num_captions=2, max_new_tokens=8, no_repeat_ngram_size=2, prompt="a man"),
    ],
    ids=["greedy", "beams", "two captions after a prompt"],
)
def test_a_batch_gives_the_captions_of_single_images(backbone: Backbone, options: GenerationOptions) -> None:
    values = pixels(backbone, 4)
    with torch.inference_mode():
        together = generate(backbone, backbone.image_features(values), options)
        alone = [generate(backbone, backbone.image_features(values[i : i + 1]), options)[0] for i in range(4)]
    assert [[c.text for c in each] for each in together] == [[c.text for c in each] for each in alone]
    assert [c.confidence for each in together for c in each] == pytest.approx(
        [c.confidence for each in alone for c in each], rel=1e-4
    )
    assert all(len(each) == options.num_captions for each in together)


def test_confidence_is_the_geometric_mean_of_token_probabilities(backbone: Backbone) -> None:
    values = pixels(backbone, 1)
    with torch.inference_mode():
        memory = backbone.image_features(values)
        start = backbone.codec.start("")
        ids = backbone.search(memory, start, GREEDY, 1.0)
        caption = generate(backbone, memory, GREEDY)[0][0]
        new = ids[0, len(start) :].tolist()
        length = new.index(backbone.eos_token_id) + 1 if backbone.eos_token_id in new else len(new)
        lengths = torch.tensor([length + len(start)])
        nll = backbone.token_losses(memory, ids, lengths, torch.tensor([0]), torch.tensor([len(start)])).nll
    assert caption.confidence == pytest.approx(float(torch.exp(-nll.mean())), rel=1e-5)
    assert 0 < caption.confidence <= 1


def test_sampling_with_a_seed_is_repeatable_and_keeps_the_global_random_state(backbone: Backbone) -> None:
    options = GenerationOptions(num_beams=1, sample=True, sample_seed=5, temperature=2.0, max_new_tokens=8)
    values = pixels(backbone, 2)
    with torch.inference_mode():
        memory = backbone.image_features(values)
        state = torch.random.get_rng_state()
        first = generate(backbone, memory, options)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert generate(backbone, memory, options) == first
        other = generate(backbone, memory, options.model_copy(update={"sample_seed": 6}))
    assert other != first


def test_variations_give_several_captions(backbone: Backbone) -> None:
    with torch.inference_mode():
        found = generate(
            backbone,
            backbone.image_features(pixels(backbone, 2)),
            GenerationOptions(variations=3, sample_seed=1, max_new_tokens=8),
        )
    assert [len(each) for each in found] == [3, 3]


def test_a_prompt_too_long_for_the_model_is_refused_with_the_number_that_fits(backbone: Backbone) -> None:
    options = GenerationOptions(max_new_tokens=backbone.max_length)
    with pytest.raises(UsageError, match="exceed"), torch.inference_mode():
        generate(backbone, backbone.image_features(pixels(backbone, 1)), options)


def test_more_captions_than_beams_raise_the_beams(backbone: Backbone) -> None:
    few = GenerationOptions(num_beams=2, num_captions=4, max_new_tokens=6)
    with torch.inference_mode():
        memory = backbone.image_features(pixels(backbone, 2))
        found = generate(backbone, memory, few)
        assert found == generate(backbone, memory, few.model_copy(update={"num_beams": 4}))
    assert [len(each) for each in found] == [4, 4]


def test_a_minimum_length_above_the_maximum_is_refused(backbone: Backbone) -> None:
    options = GenerationOptions(min_new_tokens=9, max_new_tokens=5)
    with pytest.raises(UsageError, match="longer than the longest"), torch.inference_mode():
        generate(backbone, backbone.image_features(pixels(backbone, 1)), options)


def test_recomputing_activations_gives_the_same_gradients(backbone: Backbone) -> None:
    batch = batch_of(backbone, pixels(backbone, 3), REFERENCES)
    backbone.model.train()
    backbone.set_dropout(0.0)
    gradients = []
    for recompute in (False, True):
        nll, _ = losses(backbone, batch, recompute=recompute)
        nll.mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in backbone.model.parameters() if p.grad is not None]))
        backbone.model.zero_grad()
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "backbone", ["blip-2", "git", "clip-gpt2", "florence-2"], indirect=True
)  # BLIP's text part is captune's
def test_logits_are_computed_from_contiguous_hidden_states(backbone: Backbone) -> None:
    # torch copies the weights of a linear layer once for every row of a view in bf16.
    pieces = []
    backbone.model.get_output_embeddings().register_forward_pre_hook(
        lambda layer, inputs: pieces.append(inputs[0].is_contiguous())
    )
    batch = batch_of(backbone, pixels(backbone, 3), REFERENCES)
    losses(backbone, batch)
    trained = len(pieces)
    backbone.own_search = False
    generate(backbone, backbone.image_features(batch["images"]), GenerationOptions(num_beams=2, max_new_tokens=3))
    assert trained
    assert len(pieces) > trained
    assert all(pieces)

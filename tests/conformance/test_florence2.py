"""Florence-2: tasks as prompts, text as its own processor makes it, weights in another format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

from captune.core.errors import CaptuneError, UsageError
from captune.core.files import read_json, write_json
from captune.core.options import GenerationOptions
from captune.models.florence2 import CAPTION, Florence2
from captune.models.generate import generate
from captune.models.loading.loader import load_backbone
from captune.models.loading.pretrained import PROCESSOR


@pytest.fixture(scope="module")
def florence() -> Florence2:
    torch.manual_seed(0)
    return Florence2.new("tiny", ["What does the image describe?", "two dogs play in the image"] * 2)


def test_a_task_is_read_as_the_words_that_it_was_trained_with(florence: Florence2) -> None:
    read = florence.codec.start(CAPTION)
    assert read == [florence.bos_token_id, *florence.tokenize("What does the image describe?")]
    theirs = florence.codec.processor(text=CAPTION, images=[torch.zeros(3, 32, 32)], return_tensors="pt")
    ids = theirs["input_ids"][0, florence.processor.image_seq_length :].tolist()
    assert [*read, florence.eos_token_id] == ids
    assert florence.codec.start("two dogs") == [florence.bos_token_id, *florence.tokenize("two dogs")]


@pytest.mark.parametrize(
    ("prompt", "message"), [(f"{CAPTION} of the dog", "whole prompt"), ("<OD>", "not with a caption")]
)
def test_a_task_is_the_whole_prompt_and_answers_with_text(florence: Florence2, prompt: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        florence.codec.start(prompt)


def test_a_caption_does_not_continue_its_prompt(florence: Florence2) -> None:
    with pytest.raises(UsageError, match="answer their prompt"):
        florence.codec.prefix(CAPTION, GenerationOptions(prompt_in_caption=True))
    with pytest.raises(UsageError, match="chat template"):
        florence.codec.prefix(CAPTION, GenerationOptions(system_prompt="Be short."))


def test_captions_are_what_its_own_processor_makes_of_the_tokens(florence: Florence2, tmp_path: Path) -> None:
    florence.save(tmp_path)
    (tmp_path / "captune.json").unlink()  # as a folder of others
    reading = {"post_processor_config": {"pure_text": {}}}
    write_json(tmp_path / PROCESSOR, {**read_json(tmp_path / PROCESSOR), **reading})
    again = load_backbone(str(tmp_path))
    assert (again.family, again.prompt, again.generation["num_beams"]) == ("florence-2", CAPTION, 3)
    seen = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        found = generate(again, again.image_features(seen), GenerationOptions(num_beams=1, max_new_tokens=6))
    again.save(tmp_path / "again")
    assert read_json(tmp_path / "again" / PROCESSOR).items() >= reading.items()
    processor = AutoProcessor.from_pretrained(tmp_path / "again")
    for (caption,) in found:
        text = again.tokenizer.decode([token for token in caption.tokens if token > again.eos_token_id])
        assert caption.text == processor.post_process_generation(text=text, task=CAPTION)[CAPTION]


@pytest.mark.parametrize(("name", "kind"), [("Florence-2-large", "florence2"), ("InternVL3-1B", "internvl_chat")])
def test_the_format_of_its_authors_is_refused_with_the_name_of_the_other_one(
    florence: Florence2, tmp_path: Path, name: str, kind: str
) -> None:
    folder = tmp_path / name
    florence.save(folder)
    (folder / "captune.json").unlink()
    config = read_json(folder / "config.json")
    config["model_type"], config["vision_config"] = kind, {"model_type": "davit"}
    config["auto_map"] = {"AutoConfig": "configuration_x.XConfig", "AutoModel": "modeling_x.X"}
    write_json(folder / "config.json", config)
    with pytest.raises(CaptuneError, match="authors' own code") as raised:
        load_backbone(str(folder))
    named = {"florence2": "florence-community/Florence-2-large", "internvl_chat": "OpenGVLab/InternVL3-1B-hf"}
    assert named[kind] in raised.value.hint

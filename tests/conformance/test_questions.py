"""Questions and answers: read, split by image, learned, measured, and asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import captune
from captune.core.errors import UsageError
from captune.core.options import GenerationOptions
from captune.core.runs import Run
from captune.datasets.prepared import read_split
from captune.images.batches import read_pixels
from captune.inference.batches import collate
from captune.metrics.measure import measure
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.models.blip_vqa import BlipVqa
from captune.models.generate import generate
from captune.models.loading.loader import load_backbone
from random_weights import LIVELY

TEXTS = ("a red circle", "two dogs play", "what is it ?", "how many dogs play ?")
QUESTION = "what is it ?"
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220)}


def lively(backbone: Backbone) -> Backbone:
    with torch.no_grad():
        LIVELY[backbone.family](backbone.model)
    backbone.model.eval()
    return backbone


@pytest.fixture(scope="module")
def answerer(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vqa") / "answerer"
    lively(BlipVqa.tiny(TEXTS * 3)).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def pictures(tiny_data: Path) -> list[str]:
    return [str(path) for path in sorted((tiny_data.parent / "Images").iterdir())[:6]]


def write_questions(folder: Path, count: int) -> Path:
    """VQA's pair of files: two questions about each of `count` images of one colour, ten answers each."""
    random = np.random.default_rng(0)
    (folder / "train2014").mkdir(parents=True)
    questions, annotations = [], []
    for number in range(1, count + 1):
        name = list(COLOURS)[number % 3]
        noise = random.integers(-25, 26, (32, 32, 3))
        pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "train2014" / f"COCO_train2014_{number:012d}.jpg", quality=95)
        told = {"What colour is it?": name, "Is it red?": "yes" if name == "red" else "no"}
        for place, (question, answer) in enumerate(told.items()):
            key = 10 * number + place
            questions.append({"image_id": number, "question": question, "question_id": key})
            answers = [{"answer": answer}] * 9 + [{"answer": "dunno"}]
            annotations.append({"question_id": key, "image_id": number, "answers": answers})
    asked, answered = "v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"
    (folder / asked).write_text(json.dumps({"info": {}, "questions": questions}))
    (folder / answered).write_text(json.dumps({"info": {}, "annotations": annotations}))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    captune.prepare(write_questions(folder / "vqa", 48), folder / "data", split="70/15/15", duplicates=False)
    return folder / "data"


def test_answers_are_those_of_transformers(answerer: str, pictures: list[str]) -> None:
    from transformers import AutoTokenizer, BlipForQuestionAnswering

    model = BlipForQuestionAnswering.from_pretrained(answerer).eval()
    tokenizer = AutoTokenizer.from_pretrained(answerer)
    pixels = load_backbone(answerer).pixels
    found = captune.ask(pictures, QUESTION, model=answerer, num_beams=2, max_new_tokens=6, environment={})
    words = tokenizer(QUESTION, return_tensors="pt")
    for answer, image in zip(found, pictures, strict=True):
        ids = model.generate(
            pixel_values=pixels.normalise(torch.from_numpy(read_pixels(image, pixels))[None]),
            input_ids=words["input_ids"], attention_mask=words["attention_mask"],
            num_beams=2, max_new_tokens=6, do_sample=False,
        )  # fmt: skip
        assert answer.answer == tokenizer.decode(ids[0], skip_special_tokens=True).strip()
        assert 0 < answer.confidence <= 1
    assert len({round(answer.confidence, 4) for answer in found}) > 1, "the image matters"


def test_losses_and_gradients_are_those_of_plain_layers(answerer: str) -> None:
    backbone = load_backbone(answerer)
    backbone.set_dropout(0.0)
    model, tokenizer = backbone.model, backbone.tokenizer
    seen = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    told = [
        [("a red circle", QUESTION), ("two dogs", "how many dogs play ?"), ("two", QUESTION)],
        [("dogs play", "what ?")],
    ]
    encoded = [[backbone.encode_reference(answer, 20, question) for answer, question in group] for group in told]
    batch = collate(list(zip(seen.numpy(), encoded, strict=True)), backbone.pad_token_id)
    mine = backbone.token_losses(
        backbone.image_features(batch["images"]), *(batch[k] for k in ("tokens", "lengths", "owner", "given"))
    ).nll
    mine.sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    plain = []
    for image, group in zip(seen, told, strict=True):
        patches = model.vision_model(backbone.pixels.normalise(image[None])).last_hidden_state
        for answer, question in group:
            words = tokenizer(question, return_tensors="pt")
            asked = model.text_encoder(
                input_ids=words["input_ids"], attention_mask=words["attention_mask"],
                encoder_hidden_states=patches, encoder_attention_mask=torch.ones(patches.shape[:2]).long(),
            ).last_hidden_state  # fmt: skip
            ids = [
                backbone.bos_token_id,
                *tokenizer(answer, add_special_tokens=False)["input_ids"],
                backbone.eos_token_id,
            ]
            logits = model.text_decoder(
                input_ids=torch.tensor([ids[:-1]]), encoder_hidden_states=asked,
                encoder_attention_mask=words["attention_mask"],
            ).logits  # fmt: skip
            plain.append(torch.nn.functional.cross_entropy(logits[0], torch.tensor(ids[1:]), reduction="none"))
    torch.testing.assert_close(mine, torch.cat(plain), rtol=1e-4, atol=1e-5)
    torch.cat(plain).sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_a_picture_and_all_its_questions_are_in_one_split(data: Path) -> None:
    splits = {name: read_split(data, name) for name in ("train", "val", "test")}
    pictures = {name: {record.image for record in records} for name, records in splits.items()}
    assert sum(map(len, pictures.values())) == len(set().union(*pictures.values())) == 48
    assert sum(map(len, splits.values())) == 96
    record = splits["train"][0]
    assert record.question
    assert len(record.references) == 10, "an answer that nine people gave counts nine times"
    summary = json.loads((data / "splits.json").read_text())["splits"]["train"]
    assert summary == {"rows": 20 * len(pictures["train"]), "unique_images": len(pictures["train"])}
    assert (data / "train.csv").read_text().splitlines()[0] == "image_path,question,answer"


@pytest.mark.parametrize("kind", ["folder", "csv", "jsonl", "parquet"])
def test_prepared_questions_are_read_back(data: Path, tmp_path: Path, kind: str) -> None:
    records = read_split(data, "val")
    if kind == "folder":
        source = data
    elif kind == "csv":
        source = data / "val.csv"
    elif kind == "jsonl":
        source = tmp_path / "qa.jsonl"
        rows = [{"image": r.image, "question": r.question, "answers": list(r.references)} for r in records]
        source.write_text("\n".join(map(json.dumps, rows)))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        source = tmp_path / "qa.parquet"
        rows = [
            {"image": {"bytes": Path(r.image).read_bytes()}, "question": r.question, "answers": list(r.references)}
            for r in records
        ]
        pq.write_table(pa.Table.from_pylist(rows), source)
    # Its photos lie beside neither; of what captune wrote here itself that is known.
    captune.prepare(source, tmp_path / "again", duplicates=False, allow_outside=kind == "jsonl")
    again = [r for split in ("train", "val", "test") for r in read_split(tmp_path / "again", split)]
    wanted = {(Path(r.image).read_bytes(), r.question, r.references) for r in records}
    found = {(Path(r.image).read_bytes(), r.question, r.references) for r in again}
    assert found == wanted if kind != "folder" else found > wanted


def test_training_learns_to_answer(data: Path, tmp_path: Path) -> None:
    done = captune.train(
        data, "new:blip-vqa-tiny", tmp_path / "run", max_steps=80, batch_size=16, learning_rate=3e-3,
        eval_steps=40, num_beams=1, max_new_tokens=4, captions_per_image=2, trackers=("none",), loader_workers=0,
        validation_metrics=("vqa_accuracy",), environment={},
    )  # fmt: skip
    run = Run(done.run)
    assert run.history()[-1]["eval_vqa_accuracy"] == 1.0
    assert "best_metric: vqa-accuracy" in (run.path / "config.yaml").read_text()
    found = captune.evaluate(
        run.path, data, split="test", metrics=("vqa_accuracy",), resamples=10, draw_report=False, environment={}
    )
    assert found.scores["vqa_accuracy"] == 1.0
    row = json.loads((run.path / "eval_per_image.jsonl").read_text().splitlines()[0])
    assert row["question"] in ("What colour is it?", "Is it red?")
    image = next(r for r in read_split(data, "test") if r.references[0] in COLOURS)
    assert captune.ask(image.image, image.question, model=str(run.path), environment={})[0].answer in COLOURS
    with pytest.raises(UsageError, match="has questions"):
        captune.train(data, str(run.path), tmp_path / "scst", stage="scst", environment={})


@pytest.mark.parametrize("family", [*sorted(set(FAMILIES) - {"blip-vqa"}), "blip-2-tiny-t5"])
def test_any_captioner_reads_a_question_as_its_prompt(family: str) -> None:
    torch.manual_seed(1)
    name, _, size = family.partition("-tiny-")
    backbone = lively(FAMILIES[name].new(f"tiny-{size}" if size else "tiny", TEXTS * 2))
    backbone.prompt = "a question : {question} an answer :"
    assert backbone.prompt_for("what ?") == "a question : what ? an answer :"
    seen = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    asked = ["what is it ?", "how many dogs play ?", "what is it ?"]
    batch = [
        (image.numpy(), [backbone.encode_reference("two dogs", 9, question)])
        for image, question in zip(seen, asked, strict=True)
    ]

    def losses(examples: list) -> torch.Tensor:
        one = collate(examples, backbone.pad_token_id)
        keys = ("tokens", "lengths", "owner", "given")
        return backbone.token_losses(backbone.image_features(one["images"]), *(one[k] for k in keys)).nll

    with torch.inference_mode():
        torch.testing.assert_close(losses(batch), torch.cat([losses([one]) for one in batch]), rtol=1e-4, atol=1e-4)
        prompts = [backbone.prompt_for(question) for question in asked]
        options = GenerationOptions(num_beams=2, max_new_tokens=5)
        together = generate(backbone, backbone.image_features(seen), options, prompts=prompts)
        alone = [
            generate(backbone, backbone.image_features(seen[n : n + 1]), options, prompts=prompts[n : n + 1])[0]
            for n in range(3)
        ]
    assert [c[0].text for c in together] == [c[0].text for c in alone]


def test_accuracy_is_that_of_vqa() -> None:
    def accuracy(answer: str, *answers: str) -> float:
        return measure({"q": answer}, {"q": answers}, ["vqa_accuracy"], resamples=0).scores["vqa_accuracy"]

    ten = ["two"] * 2 + ["3"] * 3 + ["four dogs"] * 5
    # Of the ten groups of nine, those without one of the two have one that agrees.
    assert accuracy("2", *ten) == pytest.approx((8 * 2 / 3 + 2 * 1 / 3) / 10)
    assert accuracy("Three.", *ten) == pytest.approx((7 * 1 + 3 * 2 / 3) / 10)
    assert accuracy("the four dogs", *ten) == 1.0
    assert accuracy("dogs", *ten) == 0.0
    assert accuracy("A dog", "dog") == 1.0
    assert accuracy("1,000", "1,000") == 1.0


def test_the_command_line(answerer: str, pictures: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from captune.cli.main import run

    assert run(["ask", pictures[0], QUESTION, "--model", answerer, "--max-new-tokens", "4"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert run(["ask", pictures[0], str(tmp_path / "gone.jpg"), QUESTION, "--model", answerer, "--json"]) == 3
    assert [bool(row["error"]) for row in json.loads(capsys.readouterr().out)] == [False, True]
    with pytest.raises(UsageError, match="no question"):
        captune.ask(pictures, " ", model=answerer)

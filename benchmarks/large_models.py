"""Memory and disk that a large model takes: captioning, training its Q-Former, and checkpoints.

    python benchmarks/large_models.py [--family vlm] [--keep FOLDER]

Makes a BLIP-2 of 700 million random values in fp16, or a vision-language model in the layout of InternVL of 500
million, and measures processes of their own: `transformers` as it opens the model itself (`dtype="auto"`), `captune
caption`, and of BLIP-2 `captune train` with its default of what learns. Needs 6 GB of memory and 6 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import machine

GB = 1e9
PLAIN = """
import sys, torch
from PIL import Image
from transformers import AutoImageProcessor, Blip2ForConditionalGeneration
model = Blip2ForConditionalGeneration.from_pretrained(sys.argv[1], dtype="auto")
pixels = AutoImageProcessor.from_pretrained(sys.argv[1], backend="pil")(Image.open(sys.argv[2]), return_tensors="pt")
with torch.inference_mode():
    model.generate(pixels.pixel_values.to(model.vision_model.dtype), max_new_tokens=8, num_beams=3)
"""
PLAIN_VLM = """
import sys, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], dtype="auto")
pixels = AutoImageProcessor.from_pretrained(sys.argv[1], backend="pil")(Image.open(sys.argv[2]), return_tensors="pt")
ids = torch.tensor([[model.config.image_token_id] * 64])
with torch.inference_mode():
    model.generate(ids, pixel_values=pixels.pixel_values.to(model.dtype), max_new_tokens=8, num_beams=3)
"""
CAPTION = """
import sys, captune
captune.Captioner.load(sys.argv[1])(sys.argv[2], max_new_tokens=8, num_beams=3)
"""
TRAIN = """
import sys, captune
captune.train(sys.argv[3], sys.argv[1], sys.argv[4], max_steps=4, eval_steps=2, batch_size=2, validation_images=0,
              trackers=("none",), environment={})
"""
PEAK = """
import resource
print("peak", next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmHWM")))
"""


def build(folder: Path, texts: list[str], seed: int = 0) -> int:
    """A BLIP-2 in fp16, a quarter as deep and wide as the published ones; returns its number of values.

    The words of `texts` are tokens, as common words are in a published model: how long captions are decides the memory.
    """
    import torch
    from transformers import Blip2Config, Blip2ForConditionalGeneration
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    from captune.models.blip2 import Blip2
    from captune.models.from_scratch import learn_tokenizer
    from captune.models.loading.pretrained import IMAGE

    tokenizer = learn_tokenizer(texts * 2, 500)  # twice: what stands once is not joined to a token
    tokenizer.add_tokens([IMAGE], special_tokens=True)
    ids = tokenizer.get_vocab()
    part = {"hidden_size": 1024, "num_attention_heads": 16}
    tokens = {"bos_token_id": ids["[DEC]"], "eos_token_id": ids["[SEP]"], "pad_token_id": ids["[PAD]"]}
    config = Blip2Config(
        vision_config={**part, "intermediate_size": 4096, "num_hidden_layers": 22, "initializer_range": 0.02},
        qformer_config={"encoder_hidden_size": 1024},
        text_config={
            "model_type": "opt", **part, "word_embed_proj_dim": 1024, "ffn_dim": 4096, "num_hidden_layers": 21,
            "vocab_size": 50304, **tokens,
        },
        image_token_index=ids[IMAGE],
    )  # fmt: skip
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float16)
    model = Blip2ForConditionalGeneration(config).to(torch.float16)
    Blip2.from_components(model, tokenizer, BlipImageProcessorPil(size={"height": 224, "width": 224})).save(folder)
    return sum(p.numel() for p in model.parameters())


def build_vlm(folder: Path, texts: list[str], seed: int = 0) -> int:
    """A vision-language model in fp16 with a language model of half a billion values; returns the number of all."""
    import torch

    from captune.models.from_scratch import Size, learn_tokenizer
    from captune.models.vlm import Vlm
    from captune.models.vlm.from_scratch import new_model

    torch.manual_seed(seed)
    torch.set_default_dtype(torch.float16)
    spec = Size(224, 14, (1024, 12, 16), (1024, 24, 16), 0.0)
    model, processor = new_model(spec, learn_tokenizer(texts * 2, 500))
    Vlm.of_processor(model.to(torch.float16), processor, {"prompt": "", "generation": {}}).save(folder)
    return sum(p.numel() for p in model.parameters())


def peak(code: str, *words: str) -> float:
    """The largest resident memory, in GB, of a process that runs some lines of Python."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code + PEAK, *words], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout.split("peak ")[1].split()[0]) * 1024 / GB


def used(folder: Path) -> float:
    """Room on the disk, in GB; what several names share counts once."""
    files = {(s.st_dev, s.st_ino): s.st_size for s in (f.stat() for f in folder.rglob("*") if f.is_file())}
    return sum(files.values()) / GB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder to leave the model and the run in")
    parser.add_argument("--family", choices=("blip-2", "vlm"), default="blip-2")
    asked = parser.parse_args()
    vlm = asked.family == "vlm"
    print(machine("torch", "transformers", "captune"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        model, data, run = folder / "model", folder / "data", folder / "run"
        build = "build_vlm" if vlm else "build"
        make = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import large_models\n"
        if not data.is_dir():
            from captune import prepare
            from captune.datasets.scenes import write_flickr8k_folder

            write_flickr8k_folder(folder / "scenes", train=8, dev=4, test=4, size=64)
            prepare(folder / "scenes", data, split="flickr8k", duplicates=False)
        if not model.is_dir():
            texts = [line.partition(",")[2] for line in (folder / "scenes/captions.txt").read_text().splitlines()[1:]]
            peak(
                f"{make}from pathlib import Path; large_models.{build}(Path(sys.argv[1]), sys.argv[2:])\n",
                str(model),
                *texts,
            )
        photo = str(next((folder / "scenes").rglob("*.jpg")))
        print(f"the model's file: {used(model):.2f} GB")
        plain = peak(PLAIN_VLM if vlm else PLAIN, str(model), photo)
        ours = peak(CAPTION, str(model), photo)
        print(f"caption, transformers dtype='auto': {plain:.2f} GB")
        print(f"caption, captune: {ours:.2f} GB ({ours / plain:.2f} times)")
        if vlm:
            return
        print(f"train the Q-Former, captune: {peak(TRAIN, str(model), photo, str(data), str(run)):.2f} GB")
        for checkpoint in sorted(run.glob("checkpoints/checkpoint-*")):
            files = json.loads((checkpoint / "complete.json").read_text())["files"]
            print(f"{checkpoint.name}: {sum(files.values()) / GB:.2f} GB of files")
        print(f"all checkpoints together: {used(run / 'checkpoints'):.2f} GB on the disk")


if __name__ == "__main__":
    main()

"""Small folders as the captune that is installed writes them: `python tests/earlier/make.py`, then move /made here.

Made for a version whose folders are laid out in another way; those of earlier versions stay as they are.
Tests replace /made by the folder where they use them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

MADE = Path("/made")
MODEL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TRAIN = "--max-steps 6 --batch-size 2 --eval-steps 2 --logging-steps 1 --learning-rate 1e-3 --num-beams 1"
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "yellow": (200, 200, 30)}


def captune(command: str) -> None:
    subprocess.run(["captune", *command.split(), "--quiet"], check=True)


def killed(command: str, file: Path) -> None:
    """Run a command until it has written a file."""
    running = subprocess.Popen(["captune", *command.split(), "--quiet"])
    while not file.exists():
        if running.poll() is not None:
            raise SystemExit(f"{command} ended before {file} was there.")
        time.sleep(0.001)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()


def source(folder: Path) -> None:
    """Eight squares with one or two references each, as files and in a table."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir()
    rows = []
    for number in range(8):
        name, colour = list(COLOURS.items())[number % 4]
        image = Image.new("RGB", (24, 24), (20 + number, 20 + number * 9, 40))
        image.paste(colour, (3 + number, 4, 20, 18))
        file = folder / f"{number:02}.png"
        image.save(file)
        references = [f"a {name} square", f"one {name} thing on the left"][: 1 + number % 2]
        rows.append({"image": {"path": file.name, "bytes": file.read_bytes()}, "captions": references})
    parquet.write_table(pyarrow.Table.from_pylist(rows), "captions.parquet")


def model(folder: Path) -> None:
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    from captune.models.from_scratch import learn_tokenizer

    torch.manual_seed(1)
    tokenizer = learn_tokenizer([f"a {name} square, one {name} thing on the left" for name in COLOURS], 100)
    ids = tokenizer.get_vocab()
    special = {"bos_token_id": ids["[DEC]"], "sep_token_id": ids["[SEP]"], "eos_token_id": ids["[SEP]"]}
    text = {**MODEL, **special, "pad_token_id": ids["[PAD]"], "max_position_embeddings": 32}
    config = BlipConfig(
        vision_config={**MODEL, "image_size": 16, "patch_size": 8},
        text_config={**text, "encoder_hidden_size": 16, "vocab_size": len(tokenizer)},
        image_text_hidden_size=16,
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    side = {"height": 16, "width": 16}
    BlipProcessor(BlipImageProcessorPil(size=side), tokenizer).save_pretrained(folder)


def portable(folder: Path) -> None:
    """Where Python is says nothing to others; pages and plots are read by nobody but people."""
    for file in (*folder.rglob("*.html"), *folder.rglob("*.png")):
        if file.parent.name != "images":
            file.unlink()
    python = str(Path(sys.prefix)).encode()
    for file in folder.rglob("*.json"):
        file.write_bytes(file.read_bytes().replace(python, b"/python"))


def main() -> None:
    import torch

    from captune.models.blip_matcher import BlipMatcher

    MADE.mkdir()
    os.chdir(MADE)
    source(Path("images"))
    model(Path("model"))
    captune("prepare captions.parquet --out data --split 60/20/20 --seed 1")
    captune(f"train --data data --model model --out finished {TRAIN}")
    killed(
        f"train --data data --model model --out killed {TRAIN}", Path("killed/checkpoints/checkpoint-2/complete.json")
    )
    job = "caption images --model finished --format jsonl --shard-size 2"
    captune(f"{job} --out captions")
    killed(f"{job} --batch-size 2 --out begun", Path("begun/captions-00000.jsonl"))
    captune("caption images --model finished --format sidecar --out sidecars")
    captune("caption images --model finished --format tar --out tars")
    captune("export finished --out onnx")
    captune("evaluate finished --data data --out evaluation")
    torch.manual_seed(1)
    BlipMatcher.tiny().save("matcher")
    captune("embed images --model matcher --out vectors.npz")
    shutil.rmtree("matcher")
    portable(MADE)


if __name__ == "__main__":
    main()

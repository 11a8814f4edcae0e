"""The way from pictures to captions as ten named blocks, for notebooks."""

from captune.app.blocks.flickr8k import PIPELINE
from captune.app.blocks.pipeline import Block, BlockError, block, run_pipeline
from captune.app.blocks.settings import Cfg

__all__ = ["PIPELINE", "Block", "BlockError", "Cfg", "block", "run_pipeline"]

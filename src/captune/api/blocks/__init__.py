"""The way from images to captions as ten named blocks, for notebooks."""

from captune.api.blocks.flickr8k import PIPELINE
from captune.api.blocks.pipeline import Block, BlockError, Cfg, block, run_pipeline

__all__ = ["PIPELINE", "Block", "BlockError", "Cfg", "block", "run_pipeline"]

"""Run by two processes: every family learns alike in shards and whole, and each process holds its half."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from captune.inference.batches import collate, supervised_tokens
from captune.models import FAMILIES
from captune.models.backbone import Backbone
from captune.training.loop.sharding import ShardedBackbone, load_state, whole_state
from captune.training.loop.trainer import TrainingModule
from tiny_vlms import BUILDERS

TEXTS = ["a red circle", "two dogs play", "a man on a bike .", "a dog"]
KINDS = [*((name, "tiny") for name in FAMILIES), ("blip-2", "tiny-t5"), ("vlm", "qwen3_vl")]


def batch_of(backbone: Backbone, pictures: range) -> dict[str, Tensor]:
    side, chance = backbone.pixels.size, torch.Generator().manual_seed(3)
    # Images in their own aspect: the first process has two of one shape, the second one by one.
    shapes = [(side, side)] * 4 if side else [(60, 90), (60, 90), (110, 70), (64, 64)]
    seen = [torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=chance).numpy() for shape in shapes]
    encoded = [[backbone.encode_reference(text, 20)] for text in TEXTS]
    return collate([(seen[n], encoded[n]) for n in pictures], backbone.pad_token_id)


def check(name: str, size: str, rank: int, recompute: bool) -> None:
    torch.manual_seed(rank)  # the first process's weights count
    backbone = BUILDERS[size]() if size in BUILDERS else FAMILIES[name].new(size, TEXTS)
    backbone.set_dropout(0.0)
    alone = replace(backbone, model=copy.deepcopy(backbone.model))
    for parameter in alone.model.parameters():
        distributed.broadcast(parameter.data, 0)
    sizes = [parameter.numel() for parameter in backbone.model.parameters()]
    shards = ShardedBackbone(backbone)
    assert sum(p.numel() for p in backbone.model.parameters()) == 0
    module = TrainingModule(shards.learner, recompute=recompute)
    shards.shard(module, apart=("vision", "bridge", "text"), count=2)
    whole = TrainingModule(alone, recompute=recompute)
    optimizers = [torch.optim.AdamW(each.parameters(), lr=1e-3, fused=True) for each in (module, whole)]
    mine, all_of_it = batch_of(alone, range(2 * rank, 2 * rank + 2)), batch_of(alone, range(4))
    tokens = supervised_tokens(all_of_it)
    for _ in range(3):
        found, expected = module(**mine)["objective"], whole(**all_of_it)["objective"]
        both = found.detach().clone()
        distributed.all_reduce(both)
        torch.testing.assert_close(both, expected.detach(), rtol=1e-5, atol=0)
        (found * 2 / tokens).backward()
        (expected / tokens).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    held = [p for p in module.parameters() if isinstance(p, DTensor)]
    assert len(held) == len(sizes)
    assert 0.4 < sum(p.to_local().numel() for p in held) / sum(sizes) < 0.6
    moments = [values["exp_avg"] for values in optimizers[0].state.values()]
    assert 0.4 < sum(m.to_local().numel() for m in moments) / sum(m.numel() for m in moments) < 0.6
    with shards.gathered():
        learned = zip(backbone.model.named_parameters(), alone.model.parameters(), strict=True)
        for (part, found), expected in learned:
            if not part.endswith("k_proj.bias"):  # no attention depends on it: its gradient is rounding alone
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        for parameter in backbone.model.parameters():
            parameter.data += 1
        shards.update_shards()
    assert sum(p.numel() for p in backbone.model.parameters()) == 0
    with shards.gathered(here=rank == 0):
        for found, expected in zip(backbone.model.parameters(), alone.model.parameters(), strict=True):
            if rank == 0:
                torch.testing.assert_close(found, expected + 1, rtol=1e-4, atol=1e-5)
            else:
                assert found.numel() == 0

    state = whole_state(optimizers[0], here=True)
    plain = optimizers[1].state_dict()
    assert state["param_groups"] == plain["param_groups"]
    assert state["state"].keys() == plain["state"].keys()
    for number, values in plain["state"].items():
        for key, value in values.items():
            torch.testing.assert_close(state["state"][number][key], value, rtol=1e-3, atol=1e-6)
    again = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    load_state(again, state)
    for parameter, values in optimizers[0].state.items():
        assert torch.equal(again.state[parameter]["exp_avg_sq"].to_local(), values["exp_avg_sq"].to_local())
    if rank == 0:
        print(f"{name} {size} learns in shards", flush=True)


def main() -> None:
    distributed.init_process_group("gloo")
    for number, (name, size) in enumerate(KINDS):
        check(name, size, distributed.get_rank(), recompute=number % 2 == 0)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()

"""A merged policy's export, fed through client/python's build_inputs_embeds, gives equal logits in transformers."""
import json
import random
import sys

import torch
import transformers

import oracle

sys.path.insert(0, str(oracle.SOURCE / "client" / "python"))
from sluice import encoder  # noqa: E402


def check(surroundings):
    chance = random.Random(3)
    leaves = [[3 + 20 * level + chance.randrange(20) for level in range(4)] for _ in range(30)]
    for item_embedding in (True, False):
        name = "with item vectors" if item_embedding else "without item vectors"
        config = json.loads(oracle.MODELS["qwen3_tied"]().config.to_json_string(use_diff=False))
        config["sluice"] = {"encoder": "merged", "item_embedding": item_embedding, "begin_token": 1,
                            "begin_reversed_token": 2}
        folder = surroundings.folder(name.replace(" ", "_"))
        surroundings.run("model_dump", "create", surroundings.write_json("config.json", config), 7, folder,
                         surroundings.write_json("leaves.json", leaves))
        model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
        leaf_of = encoder.leaf_of(folder)
        assert sorted(map(tuple, leaves)) == sorted(leaf_of) or len(leaf_of) < len(leaves)

        histories = [[leaf_of[tuple(leaves[i])] for i in items] for items in ([4, 9, 2, 2, 17], [0], [29, 5])]
        completion = [5, 26]
        rows = [[1] + [-1 - leaf for leaf in history] + completion for history in histories]
        trained, decoded = surroundings.our_logits(folder, rows)
        embeds, mask = encoder.build_inputs_embeds(model, folder, histories)
        tail = model.get_input_embeddings()(torch.tensor([completion] * len(histories)))
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        last = positions[:, -1:]
        with torch.no_grad():
            logits = model(inputs_embeds=torch.cat([embeds, tail], 1),
                           attention_mask=torch.cat([mask, torch.ones(len(histories), 2, dtype=mask.dtype)], 1),
                           position_ids=torch.cat([positions, last + 1, last + 2], 1)).logits
        for i, row in enumerate(rows):
            wanted = logits[i, -len(row):]
            oracle.expect_close(trained[i], wanted, 1e-4, f"{name}, history {i}")
            worst = oracle.expect_close(decoded[i], wanted[-1], 1e-4, f"{name}, history {i}, decoded")
        print(f"{name}: {len(rows)} histories agree (the last to {worst:.2g})")

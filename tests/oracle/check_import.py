"""Models that transformers made and saved give equal logits here: one file, sharded, and in bfloat16."""
import torch
import transformers

import oracle


def check(surroundings):
    for name in oracle.MODELS:
        model = oracle.random_model(name)
        rows = oracle.random_rows(oracle.SIZES["vocab_size"])

        folder = surroundings.folder(name)
        model.save_pretrained(folder)
        oracle.expect_equal_logits(surroundings, folder, model, rows, name)

        sharded = surroundings.folder(name + "_sharded")
        model.save_pretrained(sharded, max_shard_size="60KB")
        assert (sharded / "model.safetensors.index.json").exists(), "the model was too small to be cut"
        oracle.expect_equal_logits(surroundings, sharded, model, rows, f"{name}, sharded")

        half = surroundings.folder(name + "_bfloat16")
        model.to(torch.bfloat16).save_pretrained(half)
        widened = transformers.AutoModelForCausalLM.from_pretrained(half, dtype=torch.float32).eval()
        oracle.expect_equal_logits(surroundings, half, widened, rows, f"{name}, bfloat16")

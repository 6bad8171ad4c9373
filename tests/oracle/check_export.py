"""Policies made and saved here load in transformers, without complaint, with equal logits."""
import json
import os

import transformers

import oracle


def check(surroundings):
    for name in oracle.MODELS:
        config = json.loads(oracle.MODELS[name]().config.to_json_string(use_diff=False))
        # A value head lies in a file that transformers does not open.
        config["sluice"] = {"encoder": "codes", "value_hidden": 6}
        folder = surroundings.folder(name)
        surroundings.run("model_dump", "create", surroundings.write_json(f"{name}.json", config), 7, folder)
        assert os.path.isfile(os.path.join(folder, "sluice_value.safetensors"))
        model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not report[kind], f"{name}: {kind} {report[kind]}"
        assert type(model) is type(oracle.MODELS[name]())
        assert model.config.tie_word_embeddings == config["tie_word_embeddings"]
        rows = oracle.random_rows(oracle.SIZES["vocab_size"])
        oracle.expect_equal_logits(surroundings, folder, model.eval(), rows, name)

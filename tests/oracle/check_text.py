"""A language model with a text tokenizer, all the way: sluice.text adds semantic IDs, jobs prepare, train and export, and
transformers loads the export, reads the prompt's text in the same tokens and generates the same ten items."""
import contextlib
import io
import json
import os
import sys
import unittest

import tokenizers
import torch
import transformers

import oracle

sys.path[:0] = [str(oracle.SOURCE / "client" / "python"), str(oracle.SOURCE / "tests" / "integration")]
from sluice import text  # noqa: E402

PREFIX = "The user chose, in this order: "
SEPARATOR = ", "
CORPUS = [PREFIX, "a recommender proposes items that a user may like", "items, users and what they chose, in order"]
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=512)
MODELS = {
    "qwen2": lambda v: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        vocab_size=v, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, **SIZES)),
    # As Qwen2.5's: more rows than the tokenizer has tokens, so that not all of the new ones are new rows.
    "qwen3": lambda v: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        vocab_size=v + 10, head_dim=16, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0, **SIZES)),
}


def make_model(folder, name):
    """A checkpoint as the hub has them, with a byte-level BPE tokenizer."""
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.train_from_iterator(CORPUS, tokenizers.trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>")
    torch.manual_seed(3)
    MODELS[name](len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def command(*arguments):
    """(exit code, output, errors) of python -m sluice.text, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = text.main([str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()


def make_test(surroundings, harness):
    class TextTest(harness.SluiceTest):
        def train(self, name):
            """(data set, run of rl, run of its evaluation)"""
            base, policy = self.path("base"), self.path("policy")
            first = make_model(base, name)
            flags = (base, policy, "--levels", 3, "--codes", 8, "--prefix", PREFIX, "--separator", SEPARATOR)
            self.assertEqual(command(*flags)[:2],
                             (0, f"{policy}: semantic IDs of 3 levels of 8 codes from token {first} on\n"))
            self.assertIn("holds a model already", command(*flags)[2])
            data = self.prepare(sids={"levels": 2, "codes": 8, "vector_dim": 8, "model": policy},
                                ranker={"sequential": False})
            _, sft = self.run_job({"name": "sft", "kind": "sft", "data": data, "model": {"path": policy},
                                   "sft": {"passes": 2, "targets_per_step": 50, "optimizer": {"learning_rate": 0.003},
                                           "validation": {"every": 2, "beams": 10}}})
            values = harness.rl_spec(data, steps=3, validation={"every": 3, "users": 20, "beams": 10})
            values["model"] = {"path": sft}
            _, reward, _ = self.start_reward(data)
            learner, rl = self.start_rl(values)
            self.start_actor("--learner", learner.address, reward=reward)
            self.assertEqual(learner.wait(), harness.DONE, learner.said())
            _, evaluated = self.run_job({"name": "evaluate", "kind": "evaluate", "data": data, "model": {"path": rl},
                                         "evaluate": {"beams": 10, "exclude_history": False}})
            return data, rl, evaluated

        def check_export(self, name):
            data, rl, evaluated = self.train(name)
            export = os.path.join(rl, "export", "best")
            tokenizer = transformers.AutoTokenizer.from_pretrained(export)
            model, report = transformers.AutoModelForCausalLM.from_pretrained(export, output_loading_info=True)
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
                self.assertFalse(report[kind], kind)
            self.assertEqual(type(model), type(MODELS[name](9)))
            recommend = text.Recommender(export, data)
            with open(os.path.join(export, "config.json"), encoding="utf-8") as file:
                section = json.load(file)["sluice"]
            shown = harness.read_json(evaluated, "examples.json")["lists"][0]["users"]
            self.assertEqual(len(shown), 8)
            worst = 0
            for user in shown:
                # The words of the prompt are its tokens.
                first = section["first_token"] + 3
                codes = [[(token - first) % 8 for token in recommend._sids[recommend._place[item]]]
                         for item in user["history"]]
                words = text.prompt_text(codes, PREFIX, SEPARATOR)
                self.assertEqual(tokenizer(words)["input_ids"], recommend.prompt(user["history"]))
                theirs = recommend(model, user["history"], count=10)
                ours = [(item["item"], item["log_prob"]) for item in user["items"]]
                self.assertEqual([item for item, _ in theirs], [item for item, _ in ours])
                worst = max([worst, *(abs(a - b) for (_, a), (_, b) in zip(theirs, ours))])
            self.assertLess(worst, 1e-3)
            print(f"{name}: the first ten items of {len(shown)} users agree, their log-probabilities to {worst:.2g}")

        def test_qwen2(self):
            self.check_export("qwen2")

        def test_qwen3_with_an_output_layer_of_its_own(self):
            self.check_export("qwen3")

        def test_what_does_not_fit_is_refused(self):
            base, policy = self.path("base"), self.path("policy")
            make_model(base, "qwen2")
            self.assertEqual(command(base, policy, "--levels", 1, "--codes", 8)[0], 2)
            self.assertIn("cannot load it", command(self.path("nothing"), policy, "--levels", 3, "--codes", 8)[2])
            self.assertEqual(command(base, policy, "--levels", 4, "--codes", 8)[0], 0)
            self.assertIn("has tokens of semantic IDs already",
                          command(policy, self.path("again"), "--levels", 4, "--codes", 8)[2])
            # Another number of levels than the model has tokens for; a data set that knows nothing of the model.
            events = harness.write_events(self.path("events.csv"))
            values = harness.prepare_spec(events, self.path("data"))
            values["prepare"].update(sids={"levels": 2, "codes": 8, "vector_dim": 8, "model": policy},
                                     ranker={"sequential": False})
            process, _ = self.start_job(values)
            self.assertEqual(process.wait(), harness.USAGE)
            self.assertIn("python -m sluice.text --levels 3 --codes 8", process.said())
            data = self.prepare(ranker={"sequential": False})
            process, _ = self.start_job({"name": "sft", "kind": "sft", "data": data, "model": {"path": policy}})
            self.assertEqual(process.wait(), harness.PERMISSION)
            self.assertIn("prepare the data set with prepare.sids.model", process.said())

    return TextTest


def check(surroundings):
    os.environ["SLUICE_BIN_DIR"] = str(surroundings.tools.parent / "bin")
    import harness
    if not os.path.exists(os.path.join(harness.BIN, "sluice-learner")):
        print(f"there is no sluice-learner in {harness.BIN}")
        sys.exit(77)
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(make_test(surroundings, harness))
    if not unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(suite).wasSuccessful():
        raise AssertionError("see above")

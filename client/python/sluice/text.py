"""Semantic IDs for a language model of Hugging Face, and its answers afterwards.

A Qwen or Llama checkpoint gets tokens for semantic IDs behind its own, and prompts around them in its own words:

    python -m sluice.text Qwen/Qwen2.5-0.5B runs/qwen --levels 4 --codes 256 --prefix "The user chose, in this order: "

The folder it writes is a model for `model.path` and `prepare.sids.model`; what a job exports loads in transformers:

    from transformers import AutoModelForCausalLM
    from sluice.text import Recommender

    model = AutoModelForCausalLM.from_pretrained(export)
    recommend = Recommender(export, "runs/my/data")
    for item, log_prob in recommend(model, ["i17", "i4"], count=10):
        print(item, log_prob)

A prompt is the prefix, then each item's semantic ID followed by the separator; the next item is predicted after the last
separator. Needs transformers, torch and numpy.
"""
from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from typing import Any, Sequence

from sluice.errors import InvalidRequestError, RunFolderError, SluiceError

# The specials before the codes, as common/catalog/vocabulary.h counts them.
_SPECIALS = ("<|sid_pad|>", "<|sid_begin|>", "<|sid_begin_reversed|>")
_LEVELS = "abcdefgh"


def sid_token(level: int, code: int) -> str:
    """The token of a code in text: <a_17> is code 17 of the first level."""
    return f"<{_LEVELS[level]}_{code}>"


def _sid_text(codes: Sequence[int]) -> str:
    return "".join(sid_token(level, code) for level, code in enumerate(codes))


def prompt_text(history: Sequence[Sequence[int]], prefix: str, separator: str) -> str:
    """The prompt of a history of codes, oldest first, in words."""
    return prefix + "".join(_sid_text(codes) + separator for codes in history)


def _pieces(tokenizer: Any, levels: int, first: int, prefix: str, separator: str) -> tuple[list[int], list[int]]:
    """(prefix, separator) in tokens, as they come out within whole prompts."""
    def ids(count: int) -> list[int]:
        return list(tokenizer(prompt_text([[0] * levels] * count, prefix, separator))["input_ids"])

    one = ids(1)
    start = next((i for i, token in enumerate(one) if token >= first), None)
    if start is None or not all(token >= first for token in one[start:start + levels]):
        raise InvalidRequestError("the tokenizer cuts its new tokens to pieces; it cannot be used")
    before, after = one[:start], one[start + levels:]
    sid = one[start:start + levels]
    for count in (2, 3):
        if ids(count) != before + (sid + after) * count:
            raise InvalidRequestError(
                f"the tokenizer reads the separator {separator!r} in other tokens within a prompt than at its end; take "
                "one that begins and ends with a blank or a sign, or none")
    return before, after


def add_semantic_ids(model: str, output: str, levels: int, codes: int, prefix: str = "", separator: str = "",
                     seed: int = 0) -> int:
    """Writes the model with tokens for `levels` times `codes` codes, its tokenizer, and how prompts are made.

    model: a folder, or a name on the hub where there is a network. Its weights become float32. New rows of the embeddings,
    and of the output layer if that has its own, are drawn around the mean of the others. Returns the first new token.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not 2 <= levels <= len(_LEVELS) or codes < 2:
        raise InvalidRequestError(f"want 2 to {len(_LEVELS)} levels of at least 2 codes, got {levels} of {codes}")
    if os.path.exists(os.path.join(output, "config.json")):
        raise InvalidRequestError(f"{output}: holds a model already; name another folder")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(model)
        policy: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{model}: transformers cannot load it: {str(error).splitlines()[0]}") from None
    first = len(tokenizer)
    names = [*_SPECIALS, *(sid_token(level, code) for level in range(levels) for code in range(codes))]
    tokenizer.add_tokens(names, special_tokens=True)
    if tokenizer.convert_tokens_to_ids(names) != list(range(first, first + len(names))):
        raise InvalidRequestError(f"{model}: has tokens of semantic IDs already, such as {names[-1]}; take the model that "
                                  "it was made of")
    before, after = _pieces(tokenizer, levels, first, prefix, separator)

    if len(tokenizer) > policy.get_input_embeddings().num_embeddings:
        policy.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    spread = getattr(policy.config, "initializer_range", 0.02)
    tied = policy.config.tie_word_embeddings
    with torch.no_grad():
        for layer in [policy.get_input_embeddings()] + ([] if tied else [policy.get_output_embeddings()]):
            rows = layer.weight
            noise = torch.randn(len(rows) - first, rows.shape[1], generator=generator)
            rows[first:] = rows[:first].mean(0) + spread * noise

    policy.save_pretrained(output)
    tokenizer.save_pretrained(output)
    path = os.path.join(output, "config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["sluice"] = {
        "encoder": "codes", "begin_token": -1, "begin_reversed_token": first + 2, "first_token": first,
        "sid_levels": levels, "sid_codes": codes, "prefix_tokens": before, "separator_tokens": after}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
        file.write("\n")
    return first


def _read_json(*names: str) -> Any:
    path = os.path.join(*names)
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: cannot be read: {error}") from None


class Recommender:
    """Makes prompts for an exported policy, and lists the items that it proposes, as Sluice's own beam search does."""

    def __init__(self, export: str | os.PathLike[str], data: str | os.PathLike[str]) -> None:
        """export: a model that sluice.text made, or that a job made of it. data: the data set's folder."""
        import numpy

        section = _read_json(os.fspath(export), "config.json").get("sluice", {})
        if not section.get("first_token"):
            raise InvalidRequestError(f"{export}: no language model with semantic IDs; python -m sluice.text makes one")
        self.names: list[str] = _read_json(os.fspath(data), "item_names.json")
        manifest = _read_json(os.fspath(data), "manifest.json")
        if manifest.get("first_token", 0) != section["first_token"]:
            raise InvalidRequestError(f"{data}: was not prepared for this model; give it as prepare.sids.model")
        codes = numpy.load(os.path.join(os.fspath(data), "item_codes.npy"))
        self.levels = int(codes.shape[1])
        first = section["first_token"] + len(_SPECIALS)
        shifted = codes + first + numpy.arange(self.levels) * int(manifest["codes"])
        self._sids: list[tuple[int, ...]] = [tuple(row) for row in shifted.tolist()]
        self._place = {name: item for item, name in enumerate(self.names)}
        self._prefix: list[int] = section.get("prefix_tokens", [])
        self._separator: list[int] = section.get("separator_tokens", [])
        self._items = defaultdict(list)
        self._children: dict[tuple[int, ...], set[int]] = defaultdict(set)
        for item, sid in enumerate(self._sids):
            self._items[sid].append(item)
            for level in range(self.levels):
                self._children[sid[:level]].add(sid[level])

    def prompt(self, history: Sequence[str]) -> list[int]:
        """The tokens of a history of item names, oldest first."""
        tokens = list(self._prefix)
        for name in history:
            if name not in self._place:
                raise InvalidRequestError(f"there is no item {name!r} in the data set")
            tokens += [*self._sids[self._place[name]], *self._separator]
        return tokens

    def __call__(self, model: Any, history: Sequence[str], count: int = 10, beams: int = 0) -> list[tuple[str, float]]:
        """[(item, log-probability of its semantic ID over the whole vocabulary)], best first, at least `count` items if
        the catalog has them. beams: of the search (default: `count`)."""
        import torch

        beams = max(beams or count, count)
        prompt = self.prompt(history)
        inputs = torch.tensor([prompt], device=model.device)
        with torch.no_grad():
            out = model.generate(
                inputs, attention_mask=torch.ones_like(inputs), do_sample=False, num_beams=beams,
                num_return_sequences=beams, max_new_tokens=self.levels, length_penalty=0.0, early_stopping=False,
                eos_token_id=None, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
                prefix_allowed_tokens_fn=lambda _, row: sorted(self._children[tuple(row.tolist()[len(prompt):])]))
        found = []
        for row, score in zip(out.sequences[:, len(prompt):].tolist(), out.sequences_scores.tolist()):
            # A catalog with fewer semantic IDs than beams leaves some that lead nowhere.
            found += [(self.names[item], float(score)) for item in self._items.get(tuple(row), [])]
        return found[:count]


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code, as docs/python.md lists them."""
    parser = argparse.ArgumentParser(prog="python -m sluice.text",
                                     description="Adds tokens of semantic IDs to a language model of Hugging Face.")
    parser.add_argument("model", metavar="MODEL", help="folder, or name on the hub where there is a network")
    parser.add_argument("output", metavar="OUTPUT", help="folder to write; model.path and prepare.sids.model of jobs")
    parser.add_argument("--levels", type=int, required=True, help="of a semantic ID, with the unique level if there is one")
    parser.add_argument("--codes", type=int, required=True, help="codes a level")
    parser.add_argument("--prefix", default="The user chose, in this order: ", help="before the first item")
    parser.add_argument("--separator", default=", ", help="after each item")
    parser.add_argument("--seed", type=int, default=0, help="of the new rows")
    flags = parser.parse_args(argv)
    try:
        first = add_semantic_ids(flags.model, flags.output, flags.levels, flags.codes, flags.prefix, flags.separator,
                                 flags.seed)
    except ImportError as error:
        print(f"sluice.text: {error.name} is not installed: pip install 'sluice[text]'", file=sys.stderr)
        return 2
    except SluiceError as error:
        print(f"sluice.text: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{flags.output}: semantic IDs of {flags.levels} levels of {flags.codes} codes from token {first} on")
    return 0


if __name__ == "__main__":
    sys.exit(main())

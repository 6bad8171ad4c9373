"""Constrained beam search and scores against transformers: generate() with a prefix constraint, and every semantic ID
of a small catalog scored by plain forward passes. Ours come from sluice-inspect, as a user would get them."""
import collections
import json

import torch

from oracle import MODELS, expect_close, random_model, random_rows

BEAMS = 10
LEVELS = 3
CODES = 7
FIRST_TOKEN = 3
TOLERANCE = 1e-4


def random_catalog(items, seed):
    """Semantic IDs of LEVELS tokens; the last two items share theirs with earlier ones."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, CODES, (items - 2, LEVELS), generator=generator)
    sids = [[FIRST_TOKEN + level * CODES + code for level, code in enumerate(row)] for row in codes.tolist()]
    return sids + [sids[4], sids[0]]


def legal_children(sids):
    children = collections.defaultdict(set)
    for sid in sids:
        for level in range(LEVELS):
            children[tuple(sid[:level])].add(sid[level])
    return {prefix: sorted(tokens) for prefix, tokens in children.items()}


def their_beams(model, prompt, children):
    """transformers masks after its log-softmax, so scores are over the whole vocabulary."""
    out = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        num_beams=BEAMS, num_return_sequences=BEAMS, max_new_tokens=LEVELS, length_penalty=0.0, early_stopping=False,
        prefix_allowed_tokens_fn=lambda _, row: children[tuple(row.tolist()[len(prompt):])],
        return_dict_in_generate=True, output_scores=True)
    tokens = [tuple(row) for row in out.sequences[:, len(prompt):].tolist()]
    return dict(zip(tokens, out.sequences_scores.tolist()))


def their_scores(model, prompt, sids, children):
    """Per token log-probabilities of every semantic ID, {sid: (full, trie)}."""
    rows = torch.tensor([prompt + list(sid) for sid in sids])
    with torch.no_grad():
        logits = model(input_ids=rows).logits[:, len(prompt) - 1:-1].double()
    full = torch.log_softmax(logits, -1)
    scores = {}
    for i, sid in enumerate(sids):
        of_full = [full[i, level, token].item() for level, token in enumerate(sid)]
        of_trie = [of_full[level] - torch.logsumexp(full[i, level, children[tuple(sid[:level])]], 0).item()
                   for level in range(LEVELS)]
        scores[tuple(sid)] = (of_full, of_trie)
    return scores


def expect_beams(beams, wanted, sids, what):
    """The same semantic IDs and log-probabilities, in falling order, each with all of its items."""
    got = {tuple(beam["tokens"]): beam["log_prob"] for beam in beams}
    if set(got) != set(wanted):
        raise AssertionError(f"{what}: want {sorted(wanted)}, got {sorted(got)}")
    order = sorted(wanted, key=wanted.get)
    if min(wanted[b] - wanted[a] for a, b in zip(order, order[1:])) > TOLERANCE and list(got) != order[::-1]:
        raise AssertionError(f"{what}: the same semantic IDs in another order")
    for beam in beams:
        items = [i for i, sid in enumerate(sids) if sid == beam["tokens"]]
        if beam["items"] != items:
            raise AssertionError(f"{what}: {beam['tokens']} is items {items}, got {beam['items']}")
    names = sorted(wanted)
    return expect_close(torch.tensor([got[name] for name in names]), torch.tensor([wanted[name] for name in names]),
                        TOLERANCE, what)


def check_model(oracle, name):
    model = random_model(name)
    model.generation_config.eos_token_id = None  # a completion is LEVELS tokens, whatever they are
    folder = oracle.folder(name)
    model.save_pretrained(folder)
    sids = random_catalog(90, seed=len(name))
    children = legal_children(sids)
    unique = sorted({tuple(sid) for sid in sids})
    prompts = random_rows(model.config.vocab_size)
    items = oracle.write_json("items.json", sids)
    lines = oracle.work / "lines.jsonl"
    completions = [list(sid) for sid in unique]
    lines.write_text("".join(json.dumps({"prompt": p, "completions": completions}) + "\n" for p in prompts))

    def inspect(beams, space):
        out = oracle.run("../bin/sluice-inspect", "score", "--model", folder, "--items", items, "--input", lines,
                         "-o", "jsonl", "--beams", beams, "--space", space)
        return [json.loads(line) for line in out.splitlines()]

    narrow, wide = inspect(BEAMS, "full"), inspect(len(unique), "trie")
    worst = 0
    for i, prompt in enumerate(prompts):
        what = f"{name}, prompt {i}"
        scores = their_scores(model, prompt, unique, children)
        for space, index in (("log_probs_full", 0), ("log_probs_trie", 1)):
            worst = max(worst, expect_close(torch.tensor(narrow[i][space]),
                                            torch.tensor([scores[sid][index] for sid in unique]), TOLERANCE,
                                            f"{what}, {space}"))
        worst = max(worst, expect_beams(narrow[i]["beams"], their_beams(model, prompt, children), sids,
                                        f"{what}, {BEAMS} beams"))
        exact = {sid: sum(of_trie) for sid, (_, of_trie) in scores.items()}
        worst = max(worst, expect_beams(wide[i]["beams"], exact, sids, f"{what}, all of the catalog"))
    print(f"{name}: scores and beams of {len(prompts)} prompts agree to {worst:.2g}")


def check(oracle):
    for name in MODELS:
        check_model(oracle, name)

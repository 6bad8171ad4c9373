#!/usr/bin/env python3
"""The Hugging Face side of the comparison: what a user of transformers would write, one row of work a process.

    hf_side.py model SIZE FOLDER                                        saves a model with random weights
    hf_side.py run ROW --work FILE --model FOLDER --threads N           answers on standard input and output

`run` first does the row's work once, and prints what came of it as one JSON line, to be compared with Sluice's. Then it
repeats the work for every line "run" on standard input, and prints the seconds a call and the peak memory. Sluice's side (tests/bench/compare/compare_driver.cc) speaks the same. Model and work are the same files on both sides; see
docs/benchmarks.md for the rows.
"""
import argparse
import json
import os
import resource
import sys
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList  # noqa: E402

PAD, BEGIN, FIRST_CODE = 0, 1, 3
LEARNING_RATE = 1e-5
CLIP_NORM = 1.0
CLIP_RATIO = 0.2
SAMPLE_SECONDS = 0.2  # a sample is the mean of as many calls as take this long
EVAL_BATCH = 4  # 200 rows a batch at 50 beams: transformers repeats the prompt in each of them
MODELS = {
    "S": dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
              intermediate_size=512),
    "M": dict(hidden_size=256, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=4, head_dim=32,
              intermediate_size=1024),
}


def save_model(size, folder):
    config = transformers.Qwen3Config(
        vocab_size=FIRST_CODE + 4 * 256, max_position_embeddings=512, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, pad_token_id=PAD, bos_token_id=BEGIN,
        eos_token_id=None, **MODELS[size])
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(config).to(torch.float32)
    model.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


class Work:
    """The work file: semantic IDs as tokens, and the prompts, completions and users of the rows."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            work = json.load(file)
        self.levels, codes = work["levels"], work["codes"]
        self.sids = [[FIRST_CODE + level * codes + code for level, code in enumerate(row)] for row in work["sids"]]
        self.fields = work

    def tokens(self, items):
        return [token for item in items for token in self.sids[item]]

    def prompt(self, items):
        return [BEGIN] + self.tokens(items)

    def legal_children(self):
        """Every prefix of a semantic ID -> the tokens that may follow, as an index."""
        children = {}
        for sid in self.sids:
            for level in range(self.levels):
                children.setdefault(tuple(sid[:level]), set()).add(sid[level])
        return {prefix: torch.tensor(sorted(tokens)) for prefix, tokens in children.items()}


class TrieConstraint(LogitsProcessor):
    """Leaves a row only the tokens that continue its prefix in the catalog. Stateless: the prefix is what follows the
    prompt."""

    def __init__(self, children, prompt_length):
        self.children = children
        self.prompt_length = prompt_length

    def __call__(self, input_ids, scores):
        mask = torch.full_like(scores, float("-inf"))
        for row, prefix in enumerate(input_ids[:, self.prompt_length:].tolist()):
            mask[row, self.children[tuple(prefix)]] = 0
        return scores + mask


def left_padded(rows):
    longest = max(map(len, rows))
    ids = torch.tensor([[PAD] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


@torch.no_grad()
def generate(model, prompts, children, levels, count, sample):
    """`count` semantic IDs of each prompt: [prompts][count] of tokens, and beam scores (None for samples)."""
    ids, mask = left_padded(prompts)
    how = dict(do_sample=True, top_k=0, top_p=1.0, temperature=1.0) if sample else dict(
        do_sample=False, num_beams=count, length_penalty=0.0, early_stopping=False)
    out = model.generate(
        ids, attention_mask=mask, logits_processor=LogitsProcessorList([TrieConstraint(children, ids.shape[1])]),
        generation_config=GenerationConfig(max_new_tokens=levels, num_return_sequences=count, pad_token_id=PAD,
                                           eos_token_id=None, return_dict_in_generate=True, output_scores=not sample,
                                           **how))
    tokens = out.sequences[:, ids.shape[1]:].reshape(len(prompts), count, levels).tolist()
    scores = None if sample else out.sequences_scores.reshape(len(prompts), count).tolist()
    return tokens, scores


class Decoding:
    """Rows beams and samples: one call for all prompts."""

    def __init__(self, row, work, model):
        self.model, self.levels = model.eval(), work.levels
        self.prompts = [work.prompt(items) for items in work.fields["prompts"]]
        self.children = work.legal_children()
        self.count, self.sample = work.fields["candidates"], row == "samples"
        self.catalog = set(map(tuple, work.sids))
        torch.manual_seed(1)

    def __call__(self):
        return generate(self.model, self.prompts, self.children, self.levels, self.count, self.sample)

    def first(self):
        tokens, scores = self()
        found = [tuple(sid) for row in tokens for sid in row]
        valid = sum(sid in self.catalog for sid in found) / len(found)
        return {"valid": valid} if self.sample else {"valid": valid, "beams": tokens, "scores": scores}


class Evaluation:
    """Row eval: where each user's target stands among the beams, users as they come, a few a batch."""

    def __init__(self, row, work, model):
        del row
        self.model, self.levels, self.count = model.eval(), work.levels, work.fields["eval_beams"]
        self.users = [(work.prompt(user["history"]), work.sids[user["target"]]) for user in work.fields["eval"]]
        self.children = work.legal_children()

    def __call__(self):
        ranks, first_ten = [], []
        for first in range(0, len(self.users), EVAL_BATCH):
            batch = self.users[first:first + EVAL_BATCH]
            tokens, _ = generate(self.model, [prompt for prompt, _ in batch], self.children, self.levels, self.count,
                                 sample=False)
            ranks += [row.index(target) + 1 if target in row else 0 for row, (_, target) in zip(tokens, batch)]
            first_ten += [row[:10] for row in tokens]
        return ranks, first_ten

    def first(self):
        ranks, first_ten = self()
        return {"ranks": ranks, "beams": first_ten}


def completion_log_probs(model, ids, mask, count):
    """Log-probabilities of each row's last `count` tokens over the full vocabulary, logits of those alone: [rows, count]."""
    logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=count + 1).logits[:, :-1]
    return torch.log_softmax(logits, -1).gather(-1, ids[:, -count:, None])[..., 0]


class Training:
    """An update: loss, backward pass, clip by global norm, AdamW."""

    def __init__(self, model):
        self.model = model.train()
        # `fused` is transformers' own default, and faster than torch's.
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=True)

    def __call__(self, learning_rate=LEARNING_RATE):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.param_groups[0]["lr"] = learning_rate
        self.optimizer.step()
        return loss.item(), norm.item()


class Update(Training):
    """Row update: GRPO as TRL does it, every completion with its prompt in a row of its own, one pass over all rows."""

    def __init__(self, row, work, model):
        super().__init__(model)
        del row
        fields = work.fields
        self.levels = work.levels
        self.ids = torch.tensor([work.prompt(prompt) + work.sids[item]
                                 for prompt, items in zip(fields["prompts"], fields["completions"]) for item in items])
        self.mask = torch.ones_like(self.ids)
        self.advantages = torch.tensor(fields["advantages"]).reshape(-1, 1)
        self.targets = torch.tensor([work.prompt(prompt) + work.sids[item]
                                     for prompt, item in zip(fields["prompts"], fields["targets"])])
        with torch.no_grad():
            self.old = torch.cat([completion_log_probs(model, ids, mask, self.levels)
                                  for ids, mask in zip(self.ids.split(32), self.mask.split(32))])

    def loss(self):
        ratio = torch.exp(completion_log_probs(self.model, self.ids, self.mask, self.levels) - self.old)
        clipped = torch.clamp(ratio, 1 - CLIP_RATIO, 1 + CLIP_RATIO)
        return -torch.min(ratio * self.advantages, clipped * self.advantages).mean()

    def first(self):
        """The gradient of the clipped loss at ratio 1 is that of -mean(advantage * log p), whose value we compare."""
        with torch.no_grad():
            target = completion_log_probs(self.model, self.targets, torch.ones_like(self.targets), self.levels)
        _, norm = self(learning_rate=0.0)
        return {"grpo_loss": -(self.advantages * self.old).mean().item(), "nll": -target.mean().item(),
                "gradient_norm": norm}


class Supervised(Training):
    """Row sft: next-token loss over sequences as users come, padded to the longest."""

    def __init__(self, row, work, model):
        super().__init__(model)
        del row
        rows = [work.prompt(items) for items in work.fields["sequences"]]
        longest = max(map(len, rows))
        self.ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
        self.mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        # The first item has no history, so it is no target.
        unseen = 1 + work.levels
        self.labels = torch.tensor([[-100] * unseen + row[unseen:] + [-100] * (longest - len(row)) for row in rows])

    def loss(self):
        return self.model(input_ids=self.ids, attention_mask=self.mask, labels=self.labels).loss

    def first(self):
        loss, norm = self(learning_rate=0.0)
        return {"loss": loss, "gradient_norm": norm}


class Rule:
    """The co-occurrence rule that rewards in row loop: item a followed by b at distance d <= 4 adds 1/d to co[a][b] and
    half of that to co[b][a]; the last ten items of a history vote, the newest first."""

    def __init__(self, users):
        self.together, self.popularity = {}, {}
        for items in users:
            for i, a in enumerate(items):
                self.popularity[a] = self.popularity.get(a, 0) + 1
                for distance, b in enumerate(items[i + 1:i + 5], 1):
                    self.add(a, b, 1 / distance)
                    self.add(b, a, 0.5 / distance)

    def add(self, a, b, weight):
        row = self.together.setdefault(a, {})
        row[b] = row.get(b, 0.0) + weight

    def score(self, history, item):
        votes = sum(self.together.get(a, {}).get(item, 0.0) / (k + 1) for k, a in enumerate(reversed(history[-10:])))
        return votes / (self.popularity.get(item, 0) + 5) ** 0.5


class Loop(Training):
    """Row loop: one step of on-policy GRPO over 64 prompts: sample, score, then gradients of 8 prompts at a time."""

    PROMPTS, PART = 64, 8

    def __init__(self, row, work, model):
        super().__init__(model)
        del row
        self.work, self.levels, self.count = work, work.levels, work.fields["candidates"]
        self.children = work.legal_children()
        self.item_of = {tuple(sid): item for item, sid in enumerate(work.sids)}
        self.rule = Rule(work.fields["training"])
        self.calls = 0

    def __call__(self):
        histories = self.work.fields["loop_prompts"]
        start = self.calls * self.PROMPTS % len(histories)
        self.calls += 1
        sampled = 0
        rollouts = []
        for first in range(start, start + self.PROMPTS, self.PART):
            part = histories[first:first + self.PART]
            prompts = [self.work.prompt(history) for history in part]
            tokens, _ = generate(self.model, prompts, self.children, self.levels, self.count, sample=False)
            rewards = torch.tensor([[self.rule.score(history, self.item_of[tuple(sid)]) for sid in row]
                                    for history, row in zip(part, tokens)])
            spread = rewards.std(1, keepdim=True) + 1e-4
            advantages = ((rewards - rewards.mean(1, keepdim=True)) / spread).reshape(-1, 1)
            ids, mask = left_padded([prompt + sid for prompt, row in zip(prompts, tokens) for sid in row])
            rollouts.append((ids, mask, advantages))
            sampled += len(ids)
        self.optimizer.zero_grad(set_to_none=True)
        for ids, mask, advantages in rollouts:
            log_probs = completion_log_probs(self.model, ids, mask, self.levels)
            ratio = torch.exp(log_probs - log_probs.detach())
            clipped = torch.clamp(ratio, 1 - CLIP_RATIO, 1 + CLIP_RATIO)
            (-torch.min(ratio * advantages, clipped * advantages).mean() / len(rollouts)).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        return sampled

    def first(self):
        return {"completions": self()}


ROWS = {"loop": Loop, "beams": Decoding, "samples": Decoding, "eval": Evaluation, "update": Update, "sft": Supervised}


def peak_mib():
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


def say(**fields):
    print(json.dumps(fields), flush=True)


def serve(arguments):
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    work = Work(arguments.work)
    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    row = ROWS[arguments.row](arguments.row, work, model)
    say(ready=True, result=row.first(), torch=torch.__version__, transformers=transformers.__version__)
    for line in sys.stdin:
        if line.strip() != "run":
            sys.exit(f"want the line 'run', got '{line.strip()}'")
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        wall, calls = 0.0, 0
        while wall < SAMPLE_SECONDS:
            row()
            wall, calls = time.perf_counter() - started, calls + 1
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        say(wall=wall / calls, cpu=cpu / calls, calls=calls, peak_mib=peak_mib())


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("model")
    make.add_argument("size", choices=MODELS)
    make.add_argument("folder")
    run = commands.add_parser("run")
    run.add_argument("row", choices=ROWS)
    run.add_argument("--work", required=True)
    run.add_argument("--model", required=True)
    run.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.command == "model":
        say(parameters=save_model(arguments.size, arguments.folder))
    else:
        serve(arguments)


if __name__ == "__main__":
    main()

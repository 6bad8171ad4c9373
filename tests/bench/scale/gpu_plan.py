#!/usr/bin/env python3
"""Bytes and seconds of a step of policies of 0.5 to 2 billion parameters on 8 to 512 GPUs: the table of docs/scale.md.

Half of the GPUs are learner ranks, each with the whole policy; half are actors. `--check` compares parameter counts
with those that the models' makers publish, and a few sums with hand calculations. Standard library only.
"""

import sys

# Name: vocabulary, D, I, N, query heads, key heads, head width, biases on q k v, norms of heads; published parameters.
POLICIES = {
    "0.5B (Qwen2.5)": ((151936, 896, 4864, 24, 14, 2, 64, True, False), 494_032_768),
    "1.5B (Qwen2.5)": ((151936, 1536, 8960, 28, 12, 2, 128, True, False), 1_543_714_304),
    "1.7B (Qwen3)": ((151936, 2048, 6144, 28, 16, 8, 128, False, True), 1_720_574_976),
}
FLOPS = 400e12          # a GPU in bf16, as reached in training: 40 % of 990
DECODE_FLOPS = 100e12   # ... as reached in decoding a few rows a prompt
LINK = 50e9             # bytes/s of a GPU's network port (400 Gb/s), each way
PROMPT, BRANCHES, LEVELS = 81, 17, 4   # 20 items of 4 codes and a begin token; the target and 16 completions
GROUPS = 64             # of a learner rank in a step
SCORED = 20             # candidates a group: 16 completions, the target, and negatives, rounded


def layer_matrices(policy):
    _, d, i, _, heads, kv, width, _, _ = policy
    return d * (heads + 2 * kv) * width + heads * width * d + 3 * d * i


def parameters(policy):
    vocab, d, _, n, heads, kv, width, biases, norms = policy
    layer = layer_matrices(policy) + 2 * d
    layer += (heads + 2 * kv) * width if biases else 0
    layer += 2 * width if norms else 0
    return vocab * d + n * layer + d


def train_flops(policy, rows, predicted):
    """Two operations an element and row forward, twice that backward; attention apart."""
    return 6 * (rows * policy[3] * layer_matrices(policy) + predicted * policy[0] * policy[1])


def ring_seconds(size, members, bandwidth):
    return 0 if members < 2 else 2 * (members - 1) / members * size / bandwidth


def plan(policy, gpus):
    ranks = actors = gpus // 2
    p = parameters(policy)
    rows = GROUPS * (PROMPT + BRANCHES * (LEVELS - 1))
    train = train_flops(policy, rows, GROUPS * BRANCHES * LEVELS) / FLOPS
    # One pass over the prompts and one a level over 16 rows each, the last level's logits included.
    forward = 2 * (GROUPS * (PROMPT + 16 * (LEVELS - 1)) * policy[3] * layer_matrices(policy)
                   + GROUPS * 16 * LEVELS * policy[0] * policy[1])
    sample = forward / DECODE_FLOPS
    reduce_s = ring_seconds(4 * p, ranks, LINK)
    step = max(train + reduce_s, sample)
    return {
        "rank_bytes": 18 * p,          # bf16 weights, fp32 masters, gradients and two moments
        "reduce_bytes": 4 * p, "reduce_s": reduce_s,
        "publish_bytes": 2 * p,
        "flat_s": actors / ranks * 2 * p / LINK, "one_sender_s": actors * 2 * p / LINK, "broadcast_s": 2 * p / LINK,
        "train_s": train, "sample_s": sample, "step_s": step,
        "groups_s": ranks * GROUPS / step, "scores_s": ranks * GROUPS * SCORED / step,
    }


def check():
    for name, (policy, published) in POLICIES.items():
        assert parameters(policy) == published, (name, parameters(policy), published)
    assert ring_seconds(8e9, 2, 1e9) == 8 and ring_seconds(8e9, 4, 1e9) == 12 and ring_seconds(8e9, 1, 1e9) == 0
    tiny = (10, 2, 3, 1, 1, 1, 2, False, False)
    assert layer_matrices(tiny) == 2 * 6 + 2 * 2 + 18
    assert train_flops(tiny, 5, 7) == 6 * (5 * 34 + 7 * 20)
    print("the formulas hold")


def main():
    if "--check" in sys.argv[1:]:
        return check()
    print("| policy | GPUs | reduce, s | train, s | sample, s | publish flat, s | from one sender, s | broadcast, s | "
          "groups/s | candidates/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (policy, _) in POLICIES.items():
        for gpus in (8, 32, 128, 512):
            r = plan(policy, gpus)
            print(f"| {name} | {gpus} | {r['reduce_s']:.3f} | {r['train_s']:.3f} | {r['sample_s']:.3f} | "
                  f"{r['flat_s']:.3f} | {r['one_sender_s']:.2f} | {r['broadcast_s']:.3f} | {r['groups_s']:,.0f} | "
                  f"{r['scores_s']:,.0f} |")
    return None


if __name__ == "__main__":
    main()

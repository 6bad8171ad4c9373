"""Feeds merged prompts to a policy that transformers has loaded.

A policy with the merged encoder reads one position an item: the sum of the item's token embeddings, plus the item's
own vector if the policy has such. transformers does not know of that, so its model takes `inputs_embeds`:

    from transformers import AutoModelForCausalLM
    from sluice.encoder import build_inputs_embeds

    model = AutoModelForCausalLM.from_pretrained(export)
    inputs_embeds, attention_mask = build_inputs_embeds(model, export, [[17, 4, 230], [9]], begin_token=1)
    logits = model(inputs_embeds=inputs_embeds, attention_mask=attention_mask).logits[:, -1]
    tokens = model.generate(inputs_embeds=inputs_embeds, attention_mask=attention_mask, max_new_tokens=4)

Leaves are rows of `leaf_tokens` in the export's sluice_encoder.safetensors: distinct semantic IDs in ascending order.
`leaf_of` finds them. Needs numpy and torch.
"""
import json
import os
import struct

import numpy
import torch

_ENCODER_FILE = "sluice_encoder.safetensors"
_TYPES = {"F32": numpy.dtype("<f4"), "I32": numpy.dtype("<i4")}


def read_encoder(export_dir):
    """The tensors of an export's encoder as numpy arrays: `leaf_tokens` [leaves, L] int32 and, if the policy has item
    vectors, `item_embedding.weight` [leaves, D] float32."""
    tensors = {}
    with open(os.path.join(export_dir, _ENCODER_FILE), "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        start = file.tell()
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            tensors[name] = numpy.frombuffer(file.read(end - begin), _TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def leaf_of(export_dir):
    """{semantic ID as a tuple of tokens: its leaf}."""
    return {tuple(row): leaf for leaf, row in enumerate(read_encoder(export_dir)["leaf_tokens"].tolist())}


def build_inputs_embeds(model, export_dir, leaves, begin_token=None):
    """Inputs of merged prompts, padded on the left as generation wants them.

    model: what from_pretrained(export_dir) gave.
    leaves: a history of leaves for each prompt, oldest first; lengths may differ.
    begin_token: the token every prompt starts with; by default the one in config.json, none if that is negative.
    Returns inputs_embeds [B, S, D] and attention_mask [B, S] (1: a real position).
    """
    if begin_token is None:
        with open(os.path.join(export_dir, "config.json"), encoding="utf-8") as file:
            begin_token = json.load(file)["sluice"]["begin_token"]
    encoder = read_encoder(export_dir)
    embedding = model.get_input_embeddings().weight
    leaf_tokens = torch.from_numpy(encoder["leaf_tokens"].astype(numpy.int64)).to(embedding.device)
    items = encoder.get("item_embedding.weight")
    if items is not None:
        items = torch.from_numpy(items.copy()).to(device=embedding.device, dtype=embedding.dtype)

    prompts = []
    for history in leaves:
        index = torch.as_tensor(history, dtype=torch.long, device=embedding.device)
        rows = embedding[leaf_tokens[index]].sum(dim=1)
        if items is not None:
            rows = rows + items[index]
        if begin_token >= 0:
            rows = torch.cat([embedding[begin_token].unsqueeze(0), rows])
        prompts.append(rows)

    length = max(len(rows) for rows in prompts)
    inputs_embeds = embedding.new_zeros(len(prompts), length, embedding.shape[1])
    attention_mask = torch.zeros(len(prompts), length, dtype=torch.long, device=embedding.device)
    for i, rows in enumerate(prompts):
        inputs_embeds[i, length - len(rows):] = rows
        attention_mask[i, length - len(rows):] = 1
    return inputs_embeds, attention_mask

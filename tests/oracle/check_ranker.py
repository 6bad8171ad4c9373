"""Rankers that Python exported score here as they do in Python: AOTInductor and TorchScript, pairs and users. A package of
another torch, or a damaged one, is refused."""
import hashlib
import json
import os
import subprocess
import sys
import zipfile

import torch

import oracle

sys.path[:0] = [str(oracle.SOURCE / "client" / "python"), str(oracle.SOURCE / "tests" / "integration")]
import harness  # noqa: E402
from sluice.export_ranker import Exportable, export_ranker, mapping_text  # noqa: E402

REFUSED, DAMAGED = harness.PERMISSION, harness.INTEGRITY
GROUPS = 12


class Ranker(torch.nn.Module):
    """Looks at everything: [rows] and [rows, H] to [rows]; items [rows] or, as users come once, [rows, K]."""

    def __init__(self, users_once):
        super().__init__()
        self.users_once = users_once
        self.items = torch.nn.Embedding(harness.ITEMS + 1, 12)
        self.users = torch.nn.Embedding(harness.USERS + 1, 12)
        self.mix = torch.nn.Linear(24, 12)

    def forward(self, user, history, item):
        known = (history >= 0).unsqueeze(-1)
        taste = (self.items(history.clamp(min=0)) * known).sum(1) / known.sum(1)
        taste = torch.tanh(self.mix(torch.cat([taste, self.users(user + 1)], 1)))
        if self.users_once:
            taste = taste.unsqueeze(1)
        vectors = self.items(item.clamp(min=0))
        return (taste * vectors).sum(-1), vectors.square().sum(-1)


def exportable(module):
    draw = torch.Generator().manual_seed(2)
    many = torch.randint(0, harness.ITEMS, (3, 5), generator=draw)
    free = {"history": "length"}
    if module.users_once:
        free["item"] = "items"
    return Exportable(module, {"user": torch.tensor([0, 1, 2]), "history": many, "item":
                               many[:, :3].contiguous() if module.users_once else many[:, 0].contiguous()}, free)


def golden(module):
    """Random groups with Python's own scores."""
    draw = torch.Generator().manual_seed(3)
    groups = []
    for _ in range(GROUPS):
        count, length = (int(torch.randint(1, 9, (), generator=draw)) for _ in range(2))
        user = int(torch.randint(-1, harness.USERS, (), generator=draw))
        history = torch.randint(0, harness.ITEMS, (length,), generator=draw)
        items = torch.randint(0, harness.ITEMS, (count,), generator=draw)
        rows = 1 if module.users_once else count
        with torch.no_grad():
            scores = module(torch.full((rows,), user), history.repeat(rows, 1), items[None] if module.users_once else items)
        groups.append({"user": user, "history": history.tolist(), "items": items.tolist(),
                       "scores": {head: score.flatten().tolist() for head, score in zip(("score", "head_1"), scores)}})
    return {"tolerance": 1e-5, "groups": groups}


def check(surroundings):
    data = str(surroundings.work / "data")
    spec = harness.prepare_spec(harness.write_events(str(surroundings.work / "events.csv")), data)
    spec["prepare"]["ranker"] = {"sequential": False}
    # The programs find LibTorch's libraries themselves; the stand-ins are for Python.
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}

    def run(*command):
        return subprocess.run([os.path.join(surroundings.tools, "..", "bin", command[0]), *map(str, command[1:])],
                              env=environment, capture_output=True, text=True, timeout=300)

    prepared = run("sluice-learner", "run", surroundings.write_json("prepare.yaml", spec), "--run-folder",
                   surroundings.work / "run")
    assert prepared.returncode == 0, prepared.stderr

    def serve(mapping, code, words):
        answer = run("sluice-reward", "--data", data, "--ranker", mapping, "--check")
        assert answer.returncode == code and words in answer.stderr, f"{mapping}: {answer.returncode}: {answer.stderr}"

    for users_once, name in ((False, "pairs.pt2"), (False, "script.pt"), (True, "users.pt2")):
        torch.manual_seed(1)
        module = Ranker(users_once).eval()
        what = exportable(module)
        path = surroundings.work / name
        export_ranker(what, str(path))
        text = mapping_text(what, str(path))
        assert "TODO" not in text, text
        mapping = path.with_suffix(".yaml")
        mapping.write_text(text + ("layout: users\n" if users_once else "") + f"golden: {json.dumps(golden(module))}\n")
        serve(mapping, 0, "ranker ready")
        mapping.write_text(mapping.read_text().replace('"tolerance": 1e-05, "groups": [{"user"',
                                                       '"tolerance": 0, "groups": [{"history": [1], "items": [2], "scores": '
                                                       '{"score": [9], "head_1": [9]}}, {"user"'))
        serve(mapping, REFUSED, "this is another model than the mapping was written for")
        if name == "pairs.pt2":
            refuse_others(surroundings.work, path, mapping, serve)


def refuse_others(work, path, mapping, serve):
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    serve(mapping, DAMAGED, "has the SHA-256")
    text = mapping.read_text()
    mapping.write_text(text.replace(f", sha256: {hashlib.sha256(whole).hexdigest()}", ""))
    other = work / "other.pt2"
    for old, new, words in ((torch.__version__, "2.0.0", "was exported by torch 2.0.0"),
                            ("sluice_torch", "another_tool", "does not say which torch compiled it")):
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w", zipfile.ZIP_STORED) as target:
            for entry in source.infolist():
                content = source.read(entry)
                if entry.filename.endswith("metadata.json"):
                    content = content.replace(old.encode(), new.encode())
                target.writestr(entry.filename, content)
        path.write_bytes(other.read_bytes())
        serve(mapping, REFUSED, words)
    path.write_bytes(whole[:len(whole) // 2])
    serve(mapping, DAMAGED, "cannot be loaded")
    path.write_bytes(whole)

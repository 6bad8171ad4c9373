"""Names that lead out of their folder: `..`, absolute paths, links, ends of strings and huge names in job names, job ids,
manifests and indexes of weights. Nothing is read or written outside, and each is refused plainly or made harmless.
"""

import json
import os

from experiment import harness, main
from harness import DONE, INTEGRITY

NAMES = ["../../outside", "/outside", "..", "a/../../outside", "x" * 4000, "name\nwith lines", "'; rm -rf *", "%2e%2e%2fx"]
IDS = ["..", "../job", "/etc/passwd", "a/b", "x" * 100_000, "%00", "' OR 1=1 --"]


def listing(folder):
    return sorted(os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names)


def job_names(x):
    """One-shot jobs: every run folder is a plain child of the folder of runs."""
    os.makedirs(x.path("deep", "runs"))
    events = harness.write_events(x.path("events.csv"))
    for number, name in enumerate(NAMES if x.thorough else NAMES[:4]):
        spec = dict(harness.prepare_spec(events, x.path(f"data-{number}")), name=name)
        spec["prepare"]["ranker"] = {"sequential": False}
        process = x.call("named", "sluice-learner", "run", x.spec("named", spec), "--runs", x.path("deep", "runs"))
        x.assertIn(process.code(), (DONE, harness.USAGE), process.said())
    for child in os.listdir(x.path("deep", "runs")):
        x.assertRegex(child, r"^[\w.-]{1,255}$")
        x.assertNotIn(child, (".", ".."))
    x.assertEqual(sorted(os.listdir(x.path("deep"))), ["runs"])
    x.assertFalse(any("outside" in name for name in os.listdir(x.folder)), os.listdir(x.folder))
    x.assertFalse(os.path.exists("/outside"))


def job_ids(x):
    """A coordinator: names in submissions, ids in every call."""
    cluster = harness.Cluster(x, x.data, ranks=1)
    cluster.start_coordinator()
    before = listing(x.folder)
    for number, name in enumerate(NAMES):
        submitted = cluster.ctl("submit", x.spec("named", dict(x.rl(), name=name)), "--request-id", f"{number}/../{name}"[:100])
        x.assertIn(submitted.wait(), (DONE, harness.USAGE), submitted.said())
    for job in cluster.json("list")["jobs"]:
        x.assertRegex(job["job_id"], r"^[a-z0-9-]{1,64}$")
        x.assertEqual(os.path.dirname(cluster.json("describe", job["job_id"])["run_folder"]), cluster.runs)
    for job_id in IDS:
        for command in ("describe", "watch", "cancel", "resume"):
            asked = cluster.ctl(command, job_id)
            x.assertNotEqual(asked.wait(), DONE, asked.said())
            x.assertNotIn("root:", asked.said())
    ours = ("runs/", "state/", "state", "named.yaml")
    grown = [path for path in listing(x.folder) if path not in before and not path.startswith(ours) and not path.endswith(".log")]
    x.assertEqual(grown, [])


def weights(x):
    """A model folder whose index leads elsewhere."""
    _, sft = x.run_job({"name": "sft", "kind": "sft", "data": x.data, "model": harness.model_spec(),
                        "sft": {"passes": 1, "validation": {"users": 10, "beams": 10}}})
    model = os.path.join(sft, "export", "best")
    outside = x.path("outside.safetensors")
    os.rename(os.path.join(model, "model.safetensors"), outside)
    tensors = json.loads(open(outside, "rb").read()[8:8 + int.from_bytes(open(outside, "rb").read(8), "little")])
    names = [name for name in tensors if name != "__metadata__"]
    for shard in (os.path.relpath(outside, model), outside, "../outside.safetensors", "a/../../../../outside.safetensors", "", "."):
        with open(os.path.join(model, "model.safetensors.index.json"), "w", encoding="utf-8") as file:
            json.dump({"weight_map": {name: shard for name in names}}, file)
        evaluate, _ = x.start_job({"name": "evaluate", "kind": "evaluate", "data": x.data, "model": {"path": sft}}, name="led-out")
        x.assertEqual(evaluate.wait(), INTEGRITY, f"{shard!r}: {evaluate.said()}")
        x.assertIn("model.safetensors", evaluate.said())


def manifests(x):
    """A data set whose manifest vouches for a file elsewhere, and one with a link in it."""
    manifest = os.path.join(x.data, "manifest.json")
    whole = open(manifest, encoding="utf-8").read()
    secret = x.path("secret")
    with open(secret, "w", encoding="utf-8") as file:
        file.write("secret")
    for name in ("../secret", secret, "../" * 40 + "etc/passwd"):
        document = json.loads(whole)
        files = document.get("files", document)
        some = next(iter(files))
        files[name] = files[some]
        with open(manifest, "w", encoding="utf-8") as file:
            json.dump(document, file)
        led, _ = x.start_job(x.rl(), "--address", "127.0.0.1:0", name="led-out-data")
        x.assertEqual(led.wait(), INTEGRITY, f"{name}: {led.said()}")
        x.assertNotIn("root:", led.said())
    with open(manifest, "w", encoding="utf-8") as file:
        file.write(whole)


def run(x):
    x.data  # noqa: B018  before the folder is looked at
    job_names(x)
    job_ids(x)
    weights(x)
    manifests(x)
    x.note(f"{len(NAMES)} names, {len(IDS)} ids, indexes of weights and manifests")


if __name__ == "__main__":
    main(__file__, run)

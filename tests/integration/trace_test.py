"""sluicectl trace against ledger, record and journals as Python reads them (tests/faults/audit.py)."""

import csv
import glob
import json
import os
import struct
import subprocess
import sys

import harness
from harness import DONE, INTEGRITY, USAGE

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "faults"))
import audit  # noqa: E402

STEPS = 4
GROUPS = 16  # of a step
STATUS = ("ok", "unavailable", "invalid", "rejected", "not_asked")


def ledger_rows(folder):
    with open(os.path.join(folder, "ledger.csv"), encoding="utf-8", newline="") as file:
        return {int(row["ordinal"]): row for row in csv.DictReader(file)}


def records(folder):
    """{ordinal: what the record has of it}, by the order of fields in learner/record/group_record.cc."""
    found = {}
    for path in glob.glob(os.path.join(folder, "record", "rank-*.groups")):
        with open(path, "rb") as file:
            content = file.read()
        at, first = 0, True
        while at < len(content):
            length = struct.unpack_from("<I", content, at)[0]
            payload, at = content[at + 12:at + 12 + length], at + 13 + length
            if first:
                first = False
                continue
            cursor = audit.Cursor(payload)

            def text(cursor=cursor):
                return bytes(cursor.take("B") for _ in range(cursor.take("I"))).decode()

            def numbers(form, cursor=cursor):
                return [cursor.take(form) for _ in range(cursor.take("I"))]
            step, learner, ordinal, user, target, _ = cursor.take("QQQiii")
            numbers("i"), cursor.take("i")
            if cursor.take("B"):
                cursor.take("B")
            cursor.take("B")
            one = {"step": step, "learner": learner, "user": user, "target": target}
            if cursor.take("B"):
                one["attempt"], one["lease"], one["behavior"] = cursor.take("I"), cursor.take("Q"), cursor.take("Q")
                text()
                for _ in range(cursor.take("I")):
                    numbers("i"), cursor.take("i"), numbers("f"), numbers("f")
                one["scores"] = STATUS[cursor.take("i")]
                text()
                one["ranker"] = text()
            found[ordinal] = one
    return found


def journal_lines(folder, job, ordinal):
    """[(time, event, attempt, epoch, lease)] of a group, straight from the files of its actors."""
    lines, leases = [], {}
    for path in sorted(glob.glob(os.path.join(folder, "**", "journal-*.jsonl"), recursive=True)):
        with open(path, encoding="utf-8") as file:
            for text in file:
                line = json.loads(text)
                if line["event"] in ("accepted", "refused") and line["group"][0] == ordinal:
                    lease = leases.get((os.path.dirname(path), *line["group"]))
                    if lease and lease[0] == job:
                        lines.append((line["time_us"], line["event"], line["group"][1], *lease[1:]))
                for group in line.get("groups", ()):
                    if group[0] == ordinal:
                        lease = (line["job"], line["epoch"], line["lease"])
                        leases[(os.path.dirname(path), *group[:2])] = lease
                        if line["job"] == job:
                            lines.append((line["time_us"], line["event"], group[1], *lease[1:]))
    return sorted(lines)


class TraceTest(harness.SluiceTest):
    def ctl(self, *arguments, code=DONE):
        answer = subprocess.run([os.path.join(harness.BIN, "sluicectl"), *map(str, arguments)], stdin=subprocess.DEVNULL,
                                capture_output=True, timeout=harness.LIMIT_S, text=True)
        self.assertEqual(answer.returncode, code, f"{arguments}: {answer.stdout}{answer.stderr}")
        return answer.stdout, answer.stderr

    def entry(self, trace, event, source=""):
        found = [e for e in trace["entries"] if e["event"] == event and e["source"].startswith(source)]
        self.assertTrue(found, f"{event} of {source}: {trace}")
        return found[-1]

    def check_record(self, trace, one):
        sampled, scored, judged = (self.entry(trace, event, "record/") for event in ("sampled", "scored", "judged"))
        self.assertEqual((sampled["attempt"], sampled["lease"], sampled["policy_version"]),
                         (one["attempt"], one["lease"], one["behavior"]))
        self.assertEqual((scored["scores"], scored["ranker"]), (one["scores"], one["ranker"]))
        self.assertEqual(judged["policy_version"], one["learner"])

    def check_ledger(self, trace, row, one):
        self.assertEqual((trace["state"], trace["reason"], trace["step"]), (row["state"], row["reason"], int(row["step"])))
        issued = self.entry(trace, "issued")
        self.assertEqual((issued["user"], issued["position"], issued["target"]),
                         (int(row["user"]), int(row["position"]), one["target"]))
        self.assertEqual(issued["user"], one["user"])

    def test_a_jobs_groups_are_told_as_ledger_record_and_journals_have_them(self):
        cluster = harness.Cluster(self, self.prepare(ranker={"sequential": False}), ranks=1).start_all()
        watch = cluster.submit(harness.rl_spec(cluster.data, steps=STEPS, record=True))
        self.assertEqual(watch.wait(), DONE, watch.said())
        folder = cluster.run_folder()
        job = os.path.basename(folder)
        rows, recorded = ledger_rows(folder), records(folder)
        self.assertEqual(len(rows), STEPS * GROUPS)
        # The auditor's own reading of the record agrees with this one.
        self.assertEqual({(step, ordinal, user, target, attempt) for step, ordinal, user, target, attempt
                          in audit.read_records(folder)},
                         {(one["step"], ordinal, one["user"], one["target"], one.get("attempt"))
                          for ordinal, one in recorded.items()})
        ordinals = [0, 17, STEPS * GROUPS - 1]
        document = cluster.json("trace", job, *map(str, ordinals), "--journal", cluster.journals)
        self.assertEqual(document["schema_version"], 1)
        self.assertEqual([trace["ordinal"] for trace in document["groups"]], ordinals)
        for ordinal, trace in zip(ordinals, document["groups"]):
            with self.subTest(ordinal):
                self.check_ledger(trace, rows[ordinal], recorded[ordinal])
                self.check_record(trace, recorded[ordinal])
                written = journal_lines(cluster.journals, job, ordinal)
                told = [e for e in trace["entries"] if "actor" in e]
                self.assertEqual([(e["event"], e["attempt"], e["epoch"], e["lease"]) for e in told],
                                 [line[1:] for line in written])
                self.assertEqual([e["event"] for e in told][-5:], ["leased", "sampled", "scored", "sent", "accepted"])
                self.assertEqual(self.entry(trace, "issued")["epoch"], written[-1][3])
                self.assertEqual(trace["unknown"], [])
                ended = self.entry(trace, "ended", "ledger.csv")
                self.assertGreater(ended["time"], told[-1]["time"])
                self.assertEqual(trace["entries"].index(ended), len(trace["entries"]) - 1)

        text = self.ctl("--server", cluster.address, "trace", job, 17)[0]
        self.assertIn(f"group 17: trained in step 1: {rows[17]['reason']}\n", text)
        self.assertIn("not known\n  which actor had it", text)
        self.assertEqual(self.ctl("--server", cluster.address, "-o", "name", "trace", job, 17, 3)[0], "17\n3\n")
        _, said = self.ctl("--server", cluster.address, "trace", job, STEPS * GROUPS, code=USAGE)
        self.assertIn("its 4 steps of 16 groups have 0 to 63", said)
        _, said = self.ctl("--server", cluster.address, "trace", job, 1, "--journal", folder, code=USAGE)
        self.assertIn("there is no journal at", said)
        # Of the folder alone, without a coordinator.
        self.ctl("--server", cluster.address, "delete", job)
        cluster.coordinator.kill()
        offline = json.loads(self.ctl("-o", "json", "trace", folder, 17, "--journal", cluster.journals)[0])
        self.assertEqual(offline["schema_version"], 1)
        self.check_ledger(offline["groups"][0], rows[17], recorded[17])
        self.check_record(offline["groups"][0], recorded[17])
        self.assertEqual([gap["what"] for gap in offline["groups"][0]["unknown"]],
                         ["when it was trained, and what happened to the job meanwhile"])
        # A table that lost its end.
        table = os.path.join(folder, "ledger.csv")
        with open(table, encoding="utf-8") as file:
            content = file.read()
        harness.replace_file(table, content[:-5])
        _, said = self.ctl("trace", folder, 17, code=INTEGRITY)
        self.assertIn("restore the run folder from a backup", said)
        self.assertEqual(len(said.splitlines()), 1, said)

    def test_a_run_without_a_coordinator_and_without_a_record_is_traced_too(self):
        data = self.prepare(ranker={"sequential": False})
        _, reward, _ = self.start_reward(data)
        learner, folder = self.start_rl(harness.rl_spec(data, steps=2))
        journal = self.path("journal")
        self.start_actor("--learner", learner.address, "--journal", journal, reward=reward)
        self.assertEqual(learner.wait(), DONE, learner.said())
        document = json.loads(self.ctl("-o", "json", "trace", folder, 5, "--journal", journal)[0])
        trace = document["groups"][0]
        row = ledger_rows(folder)[5]
        self.assertEqual((trace["state"], trace["reason"]), ("trained", row["reason"]))
        self.assertEqual([(e["event"], e["attempt"], e["epoch"], e["lease"]) for e in trace["entries"] if "actor" in e],
                         [line[1:] for line in journal_lines(journal, "tiny-rl", 5)])
        self.assertIn("set rl.record: true", trace["unknown"][0]["remedy"])
        _, said = self.ctl("trace", data + "/", 5, code=USAGE)
        self.assertIn("is not the folder of a run", said)


if __name__ == "__main__":
    harness.main()

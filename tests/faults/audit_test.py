"""The auditor on a run that lost an actor and a rank, and on copies of it with planted faults."""

import glob
import hashlib
import json
import os
import shutil
import struct
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "integration")]
import audit  # noqa: E402
import harness  # noqa: E402


def frames(path):
    """The header's frame, and those of the groups."""
    with open(path, "rb") as file:
        content = file.read()
    found, at = [], 0
    while at < len(content):
        end = at + 13 + struct.unpack_from("<I", content, at)[0]
        found.append(content[at:end])
        at = end
    return found


def closed(values):
    """A line of a journal, as an actor closes it."""
    text = json.dumps(values, separators=(",", ":"))[:-1]
    return f'{text},"check":"{hashlib.sha256(text.encode()).hexdigest()[:8]}"}}\n'


class WastedTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, actor, number, *lines, tail=""):
        path = os.path.join(self.folder, actor, f"journal-{number:08d}.jsonl")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(map(closed, [{"event": "file", "format": 1, "number": number, "actor": actor}, *lines]))
            file.write(tail)

    def test_what_was_sampled_and_not_trained_is_told_by_reason(self):
        def lease(event, number, *groups, epoch=1):
            return {"event": event, "job": "job", "epoch": epoch, "lease": number, "groups": groups}
        trained, refused, unsent, rolled_back = [0, 1], [1, 1], [2, 1], [3, 1]
        self.write("a", 1, lease("leased", 7, trained, refused), lease("sampled", 7, trained, refused),
                   lease("scored", 7, [*trained, "ok"], [*refused, "ok"]), lease("sent", 7, trained, refused),
                   {"event": "accepted", "group": trained}, {"event": "refused", "group": refused, "reason": "late"})
        self.write("a", 2, lease("sampled", 8, unsent), lease("leased", 9, [9, 1]),
                   tail='{"event":"sampled","job":"job","epoch":1,"le')  # killed
        # The same group in two epochs: the first time its step was lost with its rank.
        self.write("b", 1, lease("sampled", 2, rolled_back), lease("sent", 2, rolled_back),
                   {"event": "accepted", "group": rolled_back}, lease("sampled", 3, rolled_back, epoch=2),
                   lease("sent", 3, rolled_back, epoch=2), lease("leased", 4, [5, 1], [6, 1]),
                   lease("gave_back", 4, [5, 1], [6, 1]), lease("sampled", 5, [5, 1]), lease("gave_back", 5, [5, 1]))
        report = {"unsent": set(), "wasted": None}
        groups = [(0, 0, 0, 0, 1), (0, 1, 0, 0, 2), (0, 3, 0, 0, 1)]
        journals = audit.Journals([self.folder])
        audit.audit_journals(groups, "runs/job", journals, report)
        self.assertEqual((report["sampled"], report["wasted"], report["gaps"]), (6, 4, []))
        self.assertEqual(report["wasted by reason"],
                         {"refused: late": 1, "not sent": 1, "given back": 1,
                          "taken, but its step was not kept": 1})
        self.assertEqual(report["unsent"], {1})  # its second attempt is in no journal
        self.assertEqual(journals.damaged, 1)

    def test_a_missing_file_is_a_gap(self):
        self.write("a", 2)
        self.assertEqual(len(audit.Journals([self.folder]).gaps), 1)

    def test_other_formats_and_jobs_are_refused(self):
        self.write("a", 1, {"event": "leased", "job": "x", "epoch": 1, "lease": 1, "groups": []},
                   {"event": "leased", "job": "y", "epoch": 1, "lease": 2, "groups": []})
        with self.assertRaises(audit.Unreadable):
            audit.audit_journals([], "runs/job", audit.Journals([self.folder]), {"unsent": set()})
        self.write("b", 1, {"event": "file", "format": 2})
        with self.assertRaises(audit.Unreadable):
            audit.Journals([self.folder])


class AuditTest(harness.GroupFaultsTest):
    def copy_with(self, run, name, change):
        """A copy of the run whose recorded groups of rank 0 are what `change` makes of their frames."""
        folder = self.path(name)
        shutil.copytree(run, folder)
        path = os.path.join(folder, "record", "rank-0000.groups")
        changed = change(frames(path))
        with open(path, "wb") as file:
            file.write(b"".join(changed))
        return folder

    def edit_ledger(self, run, name, change):
        folder = self.path(name)
        shutil.copytree(run, folder)
        path = sorted(glob.glob(os.path.join(folder, "checkpoints", "*", "ledger-0.json")))[-1]
        with open(path, encoding="utf-8") as file:
            ledger = json.load(file)
        change(ledger)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(ledger, file)
        return folder

    def edit_table(self, run, name, change):
        """A copy of the run whose terminal table holds what `change` makes of its lines, under a mark that fits."""
        folder = self.path(name)
        shutil.copytree(run, folder)
        path = os.path.join(folder, "ledger.csv")
        with open(path, encoding="utf-8") as file:
            header, *lines = file.readlines()
        content = "".join([header] + change(lines)).encode()
        with open(path, "wb") as file:
            file.write(content)
        path = sorted(glob.glob(os.path.join(folder, "checkpoints", "*", "state.json")))[-1]
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
        state["table"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(state, file)
        return folder

    def check_table(self, run, data):
        def audit_of(name, change):
            return audit.audit(self.edit_table(run, name, change), data)
        self.assertEqual(audit_of("table-lost", lambda lines: lines[:5] + lines[6:])["lost"], {5})
        self.assertEqual(audit_of("table-doubled", lambda lines: lines[:6] + lines[5:])["duplicated"], {5})
        self.assertEqual(audit_of("table-foreign", lambda lines: lines + ["1000,0,1,trained,open,3\n"])["unexpected"], {1000})

        def edit(column, value):
            return lambda lines: [",".join([*line.split(",")[:column], value, *line.split(",")[column + 1:]])
                                  if number == 5 else line for number, line in enumerate(lines)]
        event = audit_of("table-event", edit(2, "99999"))
        self.assertEqual(event["unexpected"], {5})
        self.assertIn("event 99999 of user", audit.text_of(event))
        self.assertTrue(audit_of("table-state", edit(3, "dropped"))["contradictions"])
        self.assertTrue(audit_of("table-order", lambda lines: lines[1:] + lines[:1])["contradictions"])
        other = self.edit_table(run, "table-other", edit(4, "difficulty_"))
        self.assertIn("the terminal tables differ: other prompts, states, reasons or steps", audit.compare(run, other))
        self.assertEqual(audit.compare(run, run), [])

        shutil.copytree(run, self.path("table-torn"))
        with open(os.path.join(self.path("table-torn"), "ledger.csv"), "r+b") as file:
            file.truncate(100)
        with self.assertRaises(audit.Unreadable):
            audit.audit(self.path("table-torn"), data)

    def journals_with(self, journals, name, change):
        """A copy of the journals in which each line's object is what `change` makes of it, with the right check."""
        folder = self.path(name)
        shutil.copytree(journals, folder)
        for path in glob.glob(os.path.join(folder, "*", "journal-*.jsonl")):
            lines = []
            with open(path, encoding="utf-8") as file:
                for line in file:
                    lines.append(closed(change(json.loads(audit.CHECK.match(line).group(1) + "}"))))
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(lines)
        return [folder]

    def check_journals(self, run, cluster, third):
        report = audit.audit(run, cluster.data, [cluster.journals])
        self.assertTrue(audit.clean(report), audit.text_of(report))
        self.assertEqual((report["gaps"], report["wasted"]), ([], report["sampled"] - self.STEPS * 16))
        self.assertEqual(sum(report["wasted by reason"].values()), report["wasted"])
        self.assertIn(f"sampled     {report['sampled']} groups", audit.text_of(report))

        def forget(line):
            if line["event"] == "sent":
                line["groups"] = [group for group in line["groups"] if group[0] != third]
            return line
        never_sent = audit.audit(run, cluster.data, self.journals_with(cluster.journals, "never-sent", forget))
        self.assertEqual(never_sent["unsent"], {third})
        self.assertFalse(audit.clean(never_sent))
        self.assertIn(f"unsent      1: {third}", audit.text_of(never_sent))

        def other_attempt(line):
            if line["event"] == "sent":
                line["groups"] = [[ordinal, attempt + (ordinal == third)] for ordinal, attempt in line["groups"]]
            return line
        foreign = audit.audit(run, cluster.data, self.journals_with(cluster.journals, "other-attempt", other_attempt))
        self.assertEqual(foreign["unsent"], {third})

        def lose_lines(line):
            return {"event": "dropped", "lines": 1} if line["event"] == "sent" else line
        full_disk = audit.audit(run, cluster.data, self.journals_with(cluster.journals, "full-disk", lose_lines))
        self.assertTrue(audit.clean(full_disk), audit.text_of(full_disk))
        self.assertEqual(full_disk["unknown"], self.STEPS * 16)
        self.assertIn("gap ", audit.text_of(full_disk))

        def flip(path):
            with open(path, "r+b") as file:
                content = file.read().replace(b'"sent"', b'"semt"')
                file.seek(0)
                file.write(content)
        damaged = self.path("damaged")
        shutil.copytree(cluster.journals, damaged)
        for path in glob.glob(os.path.join(damaged, "*", "journal-*.jsonl")):
            flip(path)
        self.assertEqual(len(audit.audit(run, cluster.data, [damaged])["unsent"]), self.STEPS * 16)

    def test_a_disturbed_run_is_clean_and_planted_faults_are_named(self):
        cluster = self.start_cluster()
        watch, run = self.submit_and_freeze(cluster, record=True)
        cluster.actors.pop().kill()
        cluster.members[1].kill()
        self.thaw(cluster)
        cluster.coordinator.wait_for("group lost")
        cluster.start_rank("replacement")
        self.check_ends_well(watch, run)

        report = audit.audit(run, cluster.data)
        self.assertTrue(audit.clean(report), audit.text_of(report))
        self.assertEqual((report["trained"], report["recorded"]), (self.STEPS * 16, self.STEPS * 16))
        self.assertIn("verdict     clean", audit.text_of(report))

        self.check_table(run, cluster.data)

        def ordinal_of(frame):
            return struct.unpack_from("<Q", frame, 12 + 16)[0]
        third = ordinal_of(frames(os.path.join(run, "record", "rank-0000.groups"))[3])
        self.check_journals(run, cluster, third)

        lost = audit.audit(self.copy_with(run, "lost", lambda all_: all_[:3] + all_[4:]), cluster.data)
        self.assertEqual((lost["lost"], lost["duplicated"], lost["unexpected"]), ({third}, set(), set()))
        doubled = audit.audit(self.copy_with(run, "doubled", lambda all_: all_ + [all_[3]]), cluster.data)
        self.assertEqual((doubled["lost"], doubled["duplicated"], doubled["unexpected"]), (set(), {third}, set()))

        def foreign_target(all_):
            changed = bytearray(all_[3])
            struct.pack_into("<i", changed, 12 + 24 + 4, 10**6)
            return all_[:3] + [bytes(changed)] + all_[4:]
        foreign = audit.audit(self.copy_with(run, "foreign", foreign_target), cluster.data)
        self.assertEqual((foreign["lost"], foreign["unexpected"]), (set(), {third}))
        self.assertIn(f"ordinal {third}", audit.text_of(foreign))

        def foreign_ordinal(all_):
            changed = bytearray(all_[3])
            struct.pack_into("<Q", changed, 12 + 16, 10**6)
            return all_[:3] + [bytes(changed)] + all_[4:]
        moved = audit.audit(self.copy_with(run, "moved", foreign_ordinal), cluster.data)
        self.assertEqual((moved["lost"], moved["unexpected"]), ({third}, {10**6}))

        def prompt_of_the_next(all_):
            changed = bytearray(all_[3])
            changed[12 + 24:12 + 32] = all_[4][12 + 24:12 + 32]  # user and target
            return all_[:3] + [bytes(changed)] + all_[4:]
        repeated = audit.audit(self.copy_with(run, "repeated", prompt_of_the_next), cluster.data)
        self.assertEqual((repeated["lost"], repeated["duplicated"], repeated["unexpected"]), (set(), set(), set()))
        self.assertIn("wrong       pass 0 has item", audit.text_of(repeated))
        self.assertEqual(sum(report["tries"].values()), report["recorded"])
        self.assertEqual(report["wasted"], sum((attempt - 1) * times for attempt, times in report["tries"].items()))
        self.assertEqual(set(report["closed"].values()), {0})

        def forget_one(ledger):
            first, end = ledger["terminal"][0]
            ledger["terminal"][0] = [first + 1, end]
        forgotten = audit.audit(self.edit_ledger(run, "forgotten", forget_one), cluster.data)
        self.assertIn(0, forgotten["lost"])
        self.assertTrue(forgotten["contradictions"])

        def claim_of_the_other(ledger):
            ledger["trained"] += 1
            ledger["issued"] += 1
            ledger["terminal"] = [[first, end + 1] if i == 0 else [first, end]
                                  for i, (first, end) in enumerate(ledger["terminal"])]
        claimed = audit.audit(self.edit_ledger(run, "claimed", claim_of_the_other), cluster.data)
        self.assertFalse(audit.clean(claimed))
        self.assertTrue(claimed["duplicated"] or claimed["unexpected"], audit.text_of(claimed))

        # As a program.
        for folder, journals, code in ((run, cluster.journals, 0), (self.path("lost"), cluster.journals, 1),
                                       (run, self.path("never-sent"), 1), (run, self.path("no-journals"), 2),
                                       (self.path("nowhere"), cluster.journals, 2)):
            done = self.start("audit", sys.executable, os.path.join(HERE, "audit.py"), folder, "--data", cluster.data,
                              "--journal", journals)
            self.assertEqual(done.wait(), code, done.said())


if __name__ == "__main__":
    harness.main()

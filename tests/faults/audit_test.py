"""The auditor on a run that lost an actor and a rank, and on copies of it with planted faults."""

import glob
import hashlib
import json
import os
import shutil
import struct
import sys

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
        for folder, code in ((run, 0), (self.path("lost"), 1), (self.path("nowhere"), 2)):
            done = self.start("audit", sys.executable, os.path.join(HERE, "audit.py"), folder, "--data", cluster.data)
            self.assertEqual(done.wait(), code, done.said())


if __name__ == "__main__":
    harness.main()

#!/usr/bin/env python3
"""Alert drills: a fault is made in a running cluster, its alert fires in a real Prometheus, and clears after recovery.

    ./sluice proof alert-drills     all of them; writes docs/proof/alert_drills.md

deploy.drills, a test, runs the first one the same way. Rules are those of deploy/prometheus/alerts.py with shorter waits
and windows and nothing else changed; Prometheus scrapes and evaluates once a second.
"""

import datetime
import os
import platform
import sys
import time
import unittest
from dataclasses import dataclass

import monitoring
from monitoring import harness, wait_until
import alerts  # noqa: E402  # its folder is known once monitoring is imported

PAGE = os.path.join(monitoring.TOP, "docs", "proof", "alert_drills.md")
HOLD, WINDOW = "2s", "8s"
# Alerts whose fault no drill makes, and why; what they say of series is held by promtool's tests of the rules (deploy.alerts).
NOT_DRILLED = {
    **dict.fromkeys(("RunStalled", "CheckpointOverdue"), "its threshold is a time of minutes or more, and thresholds stay as they are"),
    "CertificateExpiring": "its threshold is a week",
    **dict.fromkeys(("LearnerStarved", "ActorsUnderused", "RewardSlow", "RewardOverloaded", "StalenessBudgetExceeded"),
                    "a matter of speeds: on a machine shared with others a drill would find what the others do"),
    **dict.fromkeys(("AdvantagesVanished", "DiversityCollapse", "KlRunaway"), "a matter of what a policy learns, which no fault makes in seconds"),
    **dict.fromkeys(("PolicyVersionWentBackwards", "LedgerImbalance"), "only a fault of Sluice itself could make it, and none is known"),
    **dict.fromkeys(("RewardInvalidScores", "RewardRejected", "GroupsLost", "GroupsUnsampled"),
                    "wants data or a ranker that are broken on purpose; the drills' cluster has one of each, and they are sound"),
    **dict.fromkeys(("LeasesExpire", "GroupKeepsBreaking", "RestartLoop"), "wants its fault several times over within the window, which is shortened"),
    **dict.fromkeys(("WeightsCorrupted", "WeightGroupPaused"), "wants a network that damages or drops what is sent between a rank and its actors"),
    "VersionSkew": "wants a process of another release",
    "FileDescriptorsLow": "wants a process with next to no file descriptors, which could not train",
}
STEPS = 1000000  # never done: the drill ends the job
LIMIT_S = 60
results = []


@dataclass
class Result:
    fault: str
    alert: str
    fired_s: float
    cleared_s: float


class DrillTest(harness.SluiceTest):
    """A cluster of one rank, one actor and a reward server at fixed addresses, with a job that goes on without scores."""

    def set_up_cluster(self):
        self.data = self.prepare(ranker={"sequential": False})
        self.cluster = harness.Cluster(self, self.data, ranks=1)
        self.reward_addresses = (harness.free_address(), harness.free_address())
        self.cluster.reward_address = self.reward_addresses[0]
        coordinator = self.cluster.start_coordinator()
        self.start_reward_again()
        self.rank = self.cluster.start_rank()
        self.actor = self.cluster.start_actor()
        self.targets = {"coordinator": coordinator.metrics, "rank": self.rank.metrics, "actor": self.actor.metrics,
                        "reward": self.reward_addresses[1]}
        rules = alerts.rules(alerts.shortened(alerts.ALERTS, HOLD, WINDOW), alerts.shortened_records(WINDOW))
        self.receiver = monitoring.Receiver(self) if monitoring.ALERTMANAGER else None
        alertmanagers = [monitoring.Alertmanager(self, self.receiver).address] if self.receiver else []
        self.prometheus = monitoring.Prometheus(self, list(self.targets.items()), rules, alertmanagers)
        self.submit = self.submit_job("nll_only")
        self.wait_for_training()

    def submit_job(self, on_reward_outage):
        return self.cluster.submit(harness.rl_spec(
            self.data, steps=STEPS, on_reward_outage=on_reward_outage, operational_steps=2, checkpoint={"every": 1000},
            reward={"ranker": "cooccurrence", "deadline_s": 0.2, "park_s": 0}))

    def start_reward_again(self):
        self.reward, _, _ = self.start_reward(self.data, *self.reward_addresses)

    def wait_for_training(self):
        open_rate = 'sum(sluice_gate_reason_ratio{reason="reward_unavailable"})'
        wait_until(lambda: (self.prometheus.value("sum(rate(sluice_steps_total[5s]))") or 0) > 0
                   and self.prometheus.value(open_rate) == 0, "Prometheus sees the job train", LIMIT_S,
                   [self.prometheus.process])

    def retarget(self, role, address):
        """What service discovery does when a process comes back at another address."""
        self.targets[role] = address
        self.prometheus.set_targets(list(self.targets.items()))

    def drill(self, fault, names, break_it, mend):
        """Nothing of `names` fires; breaks; each fires; mends; each clears. Alertmanager, if it is there, says both."""
        quiet = "none of them fires before the fault"
        wait_until(lambda: not self.prometheus.firing() & set(names), quiet, LIMIT_S, [self.prometheus.process])
        times = {}

        def note(which, started, condition):
            def look():
                firing = self.prometheus.firing()
                for name in names:
                    if condition(name in firing):
                        times.setdefault((which, name), time.monotonic() - started)
                return all((which, name) in times for name in names)
            wait_until(look, f"{', '.join(names)} {which} ({fault})", LIMIT_S, [self.prometheus.process])
        started = time.monotonic()
        break_it()
        note("fired", started, lambda fires: fires)
        self.wait_for_notes(names, "firing")
        started = time.monotonic()
        mend()
        note("cleared", started, lambda fires: not fires)
        self.wait_for_notes(names, "resolved")
        results.extend(Result(fault, name, times["fired", name], times["cleared", name]) for name in names)

    def wait_for_notes(self, names, status):
        """Alertmanager told the receiver of each alert's severity. Before the fault ends, too: it drops a short one."""
        if not self.receiver:
            return
        severity = {alert.name: alert.severity for alert in alerts.ALERTS}
        wanted = {(severity[name], status, name) for name in names}
        wait_until(lambda: wanted <= set(self.receiver.heard), f"Alertmanager passed on {wanted}", LIMIT_S,
                   [self.prometheus.process])

    def drill_reward(self):
        self.drill("the reward server is killed under a job", ("RewardUnavailable", "ScrapeMissing"), self.reward.kill,
                   self.start_reward_again)
        self.wait_for_training()

    def drill_actors(self):
        def mend():
            self.actor = self.cluster.start_actor()
            self.retarget("actor", self.actor.metrics)
        self.drill("the only actor is killed", ("ActorsMissing",), self.actor.kill, mend)
        self.wait_for_training()

    def drill_rank(self):
        def mend():
            self.rank = self.cluster.start_rank()
            self.retarget("rank", self.rank.metrics)
        self.drill("the only rank is killed", ("LearnerGroupNotFormed",), self.rank.kill, mend)
        self.wait_for_training()

    def drill_held(self):
        """The one fault that ends a job: it is cancelled first, and one that holds takes its place."""
        jobs = self.cluster.json("list")["jobs"]
        self.check_call("cancel", "sluicectl", "--server", self.cluster.address, "cancel", jobs[0]["job_id"])
        self.submit.wait()
        watch = self.submit_job("hold")
        self.wait_for_training()

        def break_it():
            self.reward.kill()
            self.assertEqual(watch.wait(), harness.HELD, watch.said())
        self.drill("the reward server is killed until the budget of a job that holds is spent", ("JobEndedBadly",), break_it,
                   self.start_reward_again)


@unittest.skipIf(monitoring.SKIP, monitoring.SKIP)
class AllDrills(DrillTest):
    def test_all(self):
        self.set_up_cluster()
        self.drill_reward()
        self.drill_actors()
        self.drill_rank()
        self.drill_held()


def page(found, now):
    hold = {alert.name: alert.hold for alert in alerts.ALERTS}
    lines = ["# Alert drills", "",
             "A fault is made in a running cluster (coordinator, rank, actor, reward server, an `rl` job), its alert fires in a "
             "real", "Prometheus, and clears after recovery. `./sluice proof alert-drills` runs them and writes this page; the test",
             "`deploy.drills` runs the first. The rules are those of `deploy/prometheus/alerts.py` with every wait shortened to "
             f"{HOLD}", f"and every window to {WINDOW}, thresholds untouched; scraped and evaluated once a second. In production the "
             "waits of the", "last column come on top, and the windows are minutes.", "",
             "Beside it runs a real Alertmanager with the routes of `deploy/prometheus/alertmanager.yml`: each drill waits until the",
             "receiver of the alert's severity was told of its beginning and its end.", "",
             f"{now:%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, Debian's Prometheus.", "",
             "| fault | alert | fired after | cleared after recovery | its wait in production |", "| --- | --- | --- | --- | --- |"]
    lines += [f"| {r.fault} | [{r.alert}](../runbooks/{r.alert}.md) | {r.fired_s:.1f} s | {r.cleared_s:.1f} s | {hold[r.alert]} |"
              for r in found]
    lines += ["", "Each drill also asks that the alert was silent before, and that the job trains with scores again afterwards (the "
              "last one:", "that the job ended as held). Recovery begins when the process is started again, so its start is in "
              "the time.", "", "Not drilled; `deploy.alerts` holds each rule to series in which it must wait, fire and clear:", "",
              "| alert | why not |", "| --- | --- |"]
    lines += [f"| [{alert.name}](../runbooks/{alert.name}.md) | {NOT_DRILLED[alert.name]} |" for alert in alerts.ALERTS
              if alert.name in NOT_DRILLED]
    return "\n".join(lines) + "\n"


def main():
    if monitoring.SKIP:
        print(f"sluice proof: {monitoring.SKIP}", file=sys.stderr)
        return 1
    if not monitoring.ALERTMANAGER:
        print("sluice proof: there is no prometheus-alertmanager here: apt-get install prometheus-alertmanager", file=sys.stderr)
        return 1
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(AllDrills)
    if not unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful():
        return 1
    text = page(results, datetime.datetime.now())
    os.makedirs(os.path.dirname(PAGE), exist_ok=True)
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

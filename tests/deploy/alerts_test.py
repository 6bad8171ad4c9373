"""The alerts: what is written is in step with its table, promtool takes it, and each alert fires, waits and clears."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "deploy", "prometheus"))
import alerts

PROMTOOL = shutil.which("promtool")
AMTOOL = shutil.which("amtool")
RANK = 'job="sluice",role="rank",instance="rank:1"'
COORDINATOR = 'job="sluice",role="coordinator",instance="coordinator:1"'
REWARD = 'job="sluice",role="reward",instance="reward:1"'
ACTOR = 'job="sluice",role="actor",instance="actor:1"'
RUNNING = (f"sluice_job_running{{{RANK}}}", "1x300")

# One sample a minute. Per alert: series, minutes at which it must be silent (held back), firing and over, and labels
# beside severity. "0x9 1x10" are ten samples of 0, from minute 0, then eleven of 1, from minute 10.
CASES = {
    "RunStalled": ([RUNNING, (f"sluice_job_last_progress_timestamp_seconds{{{RANK}}}", "0x40 2400x30")], 16, 18, 43, RANK),
    "LearnerGroupNotFormed": ([(f'sluice_coordinator_jobs{{{COORDINATOR},state="running"}}', "1x60"),
                               (f'sluice_coordinator_jobs{{{COORDINATOR},state="queued"}}', "0x60"),
                               (f"sluice_coordinator_epoch{{{COORDINATOR}}}", "1x9 0x20 2x30")], 14, 16, 33, COORDINATOR),
    "ActorsMissing": ([(f"sluice_lease_blocks_waiting{{{RANK}}}", "4x60"),
                       (f'sluice_actors{{{RANK},state="attached"}}', "1x9 0x20 1x30")], 14, 16, 33, RANK),
    "LearnerStarved": ([RUNNING, (f'sluice_step_duration_seconds_sum{{{RANK},part="wait"}}', "0+30x30 901+1x60"),
                        (f'sluice_step_duration_seconds_sum{{{RANK},part="train"}}', "0+10x90")], 12, 20, 42, RANK),
    "ActorsUnderused": ([(f"sluice_actor_busy_seconds_total{{{ACTOR}}}", "0+6x60 408+48x60"),
                         (f'sluice_groups_total{{{RANK},state="trained"}}', "0+16x120")], 25, 40, 75, 'job="sluice"'),
    "RewardUnavailable": ([RUNNING, (f'sluice_gate_reason_ratio{{{RANK},reason="reward_unavailable"}}',
                                     "0x9 1x10 0x30")], 11, 13, 23, RANK + ',reason="reward_unavailable"'),
    "RewardInvalidScores": ([(f'sluice_reward_groups_total{{{REWARD},outcome="not_finite"}}', "0x10 1+1x5 6x30")],
                            11, 14, 26, 'job="sluice"'),
    "RewardRejected": ([(f'sluice_reward_status_total{{{ACTOR},status="rejected"}}', "0x10 1+1x5 6x30")],
                       12, 15, 26, 'job="sluice"'),
    "RewardSlow": ([(f'sluice_reward_request_duration_seconds_bucket{{{REWARD},le="1"}}', "0+1x40 41+60x40"),
                    (f'sluice_reward_request_duration_seconds_bucket{{{REWARD},le="2"}}', "0+60x90"),
                    (f'sluice_reward_request_duration_seconds_bucket{{{REWARD},le="+Inf"}}', "0+60x90")],
                   9, 16, 52, 'job="sluice"'),
    "RewardOverloaded": ([(f'sluice_reward_requests_total{{{REWARD},code="RESOURCE_EXHAUSTED"}}', "0+10x30 300x40"),
                          (f'sluice_reward_requests_total{{{REWARD},code="OK"}}', "0+90x80")], 9, 16, 45, 'job="sluice"'),
    "StalenessBudgetExceeded": ([(f'sluice_deliveries_total{{{RANK},outcome="stale_version"}}', "0+10x30 300x40"),
                                 (f'sluice_deliveries_total{{{RANK},outcome="accepted"}}', "0+90x80")],
                                9, 16, 45, 'job="sluice"'),
    # The other rank's version falls too, but because another job began.
    "PolicyVersionWentBackwards": ([RUNNING, (f"sluice_published_policy_version{{{RANK}}}", "5x10 3x20"),
                                    (f"sluice_job_start_timestamp_seconds{{{RANK}}}", "0x40"),
                                    (f"sluice_job_running{{{RANK.replace(':1', ':2')}}}", "1x40"),
                                    (f"sluice_published_policy_version{{{RANK.replace(':1', ':2')}}}", "5x10 3x20"),
                                    (f"sluice_job_start_timestamp_seconds{{{RANK.replace(':1', ':2')}}}", "0x10 660x30")],
                                   10, 11, 13, RANK),
    "LedgerImbalance": ([(f"sluice_ledger_imbalance{{{RANK}}}", "0x10 1x5 0x20")], 10, 12, 18, RANK),
    "GroupsLost": ([(f'sluice_groups_total{{{RANK},state="dropped"}}', "0x10 1x60"),
                    (f'sluice_groups_total{{{RANK},state="trained"}}', "0+16x60")], 9, 13, 25, RANK + ',state="dropped"'),
    "GroupsUnsampled": ([RUNNING, (f'sluice_gate_reason_ratio{{{RANK},reason="unsampled"}}', "0x9 1x20 0x30"),
                         (f'sluice_gate_reason_ratio{{{RANK},reason="open"}}', "1x60")],
                        19, 21, 33, RANK + ',reason="unsampled"'),
    "LeasesExpire": ([(f"sluice_lease_expired_total{{{RANK}}}", "0x10 1+2x3 7x60")], 10, 16, 32, RANK),
    "WeightsCorrupted": ([(f"sluice_weight_checksum_mismatch_total{{{ACTOR}}}", "0x10 1x60")], 10, 13, 32, ACTOR),
    # The other rank has no job any more: what its gauge kept is of no matter.
    "WeightGroupPaused": ([RUNNING, (f"sluice_publish_group_paused{{{RANK}}}", "0x9 1x5 0x60"),
                           (f"sluice_job_running{{{RANK.replace(':1', ':2')}}}", "0x80"),
                           (f"sluice_publish_group_paused{{{RANK.replace(':1', ':2')}}}", "1x80")], 9, 20, 32, RANK),
    "AdvantagesVanished": ([RUNNING, (f"sluice_zero_advantage_groups_ratio{{{RANK}}}", "1x60 0.2x30")], 25, 35, 65, RANK),
    "DiversityCollapse": ([RUNNING, (f"sluice_group_diversity_ratio{{{RANK}}}", "0.05x60 0.8x30")], 25, 35, 65, RANK),
    "KlRunaway": ([RUNNING, (f"sluice_kl_mean_nats{{{RANK}}}", "2x30 0.1x30")], 8, 12, 35, RANK),
    "CheckpointOverdue": ([RUNNING, (f"sluice_job_start_timestamp_seconds{{{RANK}}}", "0x300"),
                           (f"sluice_steps_total{{{RANK}}}", "0+1x300"),
                           (f"sluice_checkpoint_last_success_timestamp_seconds{{{RANK}}}", "NaN " * 101 + "6060x200")],
                          63, 70, 105, RANK),
    "JobEndedBadly": ([(f'sluice_jobs_ended_total{{{RANK},outcome="failed"}}', "0x10 1x60"),
                       (f'sluice_jobs_ended_total{{{RANK},outcome="done"}}', "0+1x60")],
                      9, 13, 25, RANK + ',outcome="failed"'),
    "GroupKeepsBreaking": ([(f'sluice_jobs_ended_total{{{RANK},outcome="broken"}}', "0x10 1+1x5 6x80")],
                           12, 18, 60, RANK + ',outcome="broken"'),
    "RestartLoop": ([(f"process_start_time_seconds{{{ACTOR}}}", "0x5 300x2 480x2 660x2 840x80"),
                     (f'sluice_build_info{{{ACTOR},version="1"}}', "1x100")], 12, 18, 50, ACTOR),
    "VersionSkew": ([(f'sluice_build_info{{{ACTOR},version="1"}}', "1x30 _x60"),
                     (f'sluice_build_info{{{RANK},version="2"}}', "1x100")], 12, 20, 45, 'job="sluice"'),
    "ScrapeMissing": ([(f"up{{{REWARD}}}", "1x9 0x10 1x20"), (f"up{{{RANK}}}", "1x50")], 11, 13, 23, REWARD),
    "FileDescriptorsLow": ([(f"process_open_fds{{{RANK}}}", "900x30 100x40"), (f"process_max_fds{{{RANK}}}", "1000x80"),
                            (f'sluice_build_info{{{RANK},version="1"}}', "1x80")], 4, 8, 35, RANK),
    # A week is 604800 s; ten minutes from the start it is less, at the thirtieth it is renewed.
    "CertificateExpiring": ([(f'sluice_certificate_expiry_timestamp_seconds{{{RANK},file="certificate"}}', "605400x30 9999999x30"),
                             (f'sluice_certificate_expiry_timestamp_seconds{{{RANK},file="ca"}}', "9999999x80")],
                            18, 25, 35, RANK + ',file="certificate"'),
}


def labels_of(text):
    return dict(re.findall(r'(\w+)="([^"]*)"', text))


def filled(text, labels):
    return re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: labels[match.group(1)], text)


def promtool(*arguments, folder):
    return subprocess.run([PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def test_file(cases):
    """promtool's file, as JSON, which is YAML too."""
    by_name = {alert.name: alert for alert in alerts.ALERTS}
    groups = []
    for name, (series, held, firing, over, label_text) in cases.items():
        alert, labels = by_name[name], labels_of(label_text)
        expected = {"exp_labels": dict(labels, severity=alert.severity),
                    "exp_annotations": {k: filled(v, labels) for k, v in alerts.annotations(alert).items()}}
        groups.append({"interval": "1m", "input_series": [{"series": s, "values": v} for s, v in series],
                       "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": alerts_then}
                                           for minute, alerts_then in ((held, []), (firing, [expected]), (over, []))]})
    return {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": groups}


class TableTest(unittest.TestCase):
    def test_rules_and_runbooks_are_what_the_table_makes(self):
        self.assertEqual(alerts.out_of_date(), [], "run python3 deploy/prometheus/alerts.py")

    def test_a_stale_file_and_the_runbook_of_an_alert_that_is_gone_are_found(self):
        with tempfile.TemporaryDirectory() as folder:
            for path, text in {**alerts.files(), "docs/runbooks/Gone.md": "x"}.items():
                os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
                with open(os.path.join(folder, path), "w", encoding="utf-8") as file:
                    file.write(text)
            self.assertEqual(alerts.out_of_date(folder), ["docs/runbooks/Gone.md"])
            with open(os.path.join(folder, "deploy/prometheus/rules.yml"), "a", encoding="utf-8") as file:
                file.write("# by hand\n")
            self.assertEqual(alerts.out_of_date(folder), ["deploy/prometheus/rules.yml", "docs/runbooks/Gone.md"])

    def test_every_alert_says_what_to_do(self):
        names = [alert.name for alert in alerts.ALERTS]
        self.assertEqual(len(names), len(set(names)))
        for alert in alerts.ALERTS:
            self.assertRegex(alert.name, r"^([A-Z][a-z]+)+$")
            self.assertIn(alert.severity, (alerts.PAGE, alerts.TICKET))
            self.assertRegex(alert.hold, r"^\d+[sm]$")
            for text in (alert.summary, alert.description, alert.means, *alert.look, *alert.mend):
                self.assertGreater(len(text), 10, alert.name)
            self.assertTrue(alert.look and alert.mend, alert.name)
            self.assertNotIn("{{", re.sub(r"\{\{ \$labels\.\w+ \}\}", "", alert.summary + alert.description))

    def test_what_the_runbooks_call_keys_of_a_spec_are_keys_of_a_spec(self):
        with open(os.path.join(TOP, "docs", "job_spec.md"), encoding="utf-8") as file:
            page = file.read()
        for path, text in alerts.files().items():
            for key in re.findall(r"\b((?:rl|checkpoint)(?:\.[a-z_]+)+)\b", text):
                self.assertIn(f"`{key}`", page, path)

    def test_drills_shorten_waits_and_windows_and_change_nothing_else(self):
        short = {alert.name: alert for alert in alerts.shortened(alerts.ALERTS, "2s", "8s")}
        self.assertEqual(short["LedgerImbalance"].hold, "0s")
        self.assertEqual(short["RewardRejected"].hold, "2s")
        self.assertEqual(short["RewardRejected"].expr,
                         'sum by (job) (rate(sluice_reward_status_total{status="rejected"}[8s])) > 0')
        self.assertEqual(short["RewardRejected"].summary, {a.name: a for a in alerts.ALERTS}["RewardRejected"].summary)


@unittest.skipUnless(PROMTOOL, "there is no promtool here: apt-get install prometheus")
class PromtoolTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="sluice-alerts-")
        self.addCleanup(shutil.rmtree, self.folder)
        with open(os.path.join(self.folder, "rules.yml"), "w", encoding="utf-8") as file:
            file.write(alerts.rules())

    def run_cases(self, cases):
        with open(os.path.join(self.folder, "test.yml"), "w", encoding="utf-8") as file:
            json.dump(test_file(cases), file)
        return promtool("test", "rules", "test.yml", folder=self.folder)

    def test_the_rules_are_taken(self):
        answer = promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yml", folder=self.folder)
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)
        self.assertIn(f"{len(alerts.ALERTS) + len(alerts.RECORDS)} rules found", answer.stdout)

    def test_the_configuration_is_taken(self):
        answer = promtool("check", "config", os.path.join(TOP, "deploy", "prometheus", "prometheus.yml"),
                          folder=self.folder)
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)

    def test_each_alert_is_held_back_fires_and_clears(self):
        self.assertEqual(sorted(CASES), sorted(alert.name for alert in alerts.ALERTS))
        answer = self.run_cases(CASES)
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)

    def test_a_wrong_expectation_is_seen(self):
        series, held, firing, over, labels = CASES["LedgerImbalance"]
        for wrong in ((series, firing, firing, over, labels), (series, held, over, over, labels),
                      (series, held, firing, firing, labels), (series, held, firing, over, labels + ',rank="7"')):
            self.assertNotEqual(self.run_cases({"LedgerImbalance": wrong}).returncode, 0, wrong)


@unittest.skipUnless(AMTOOL, "there is no amtool here: apt-get install prometheus-alertmanager")
class RoutesTest(unittest.TestCase):
    CONFIG = os.path.join(TOP, "deploy", "prometheus", "alertmanager.yml")

    def amtool(self, *arguments):
        return subprocess.run([AMTOOL, *arguments], capture_output=True, text=True, timeout=60)

    def test_the_configuration_is_taken(self):
        answer = self.amtool("check-config", self.CONFIG)
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)

    def test_every_severity_has_its_receiver(self):
        for severity in (alerts.PAGE, alerts.TICKET):
            answer = self.amtool("config", "routes", "test", f"--config.file={self.CONFIG}", f"severity={severity}")
            self.assertEqual((answer.returncode, answer.stdout.strip()), (0, severity), answer.stderr)


if __name__ == "__main__":
    unittest.main()

"""The command lines of the JobSet, as they are declared: with certificates, in the order of their dependencies, through an eviction."""

import importlib.util
import json
import os
import re
import sys
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests", "integration"))
import harness
from certificates import Certificates, available
from harness import DONE, PREEMPTED, wait_until

sys.path.insert(0, os.path.join(TOP, "tests", "deploy"))

JOB_SET = os.path.join(TOP, "deploy", "kubernetes", "components", "jobset", "job-set.yaml")
STEPS = 12


@unittest.skipUnless(importlib.util.find_spec("yaml"), "there is no PyYAML here: ./sluice setup")
@unittest.skipUnless(available(), "there is no openssl here: apt-get install openssl")
class JobSetTest(harness.SluiceTest):
    def setUp(self):
        import yaml
        with open(JOB_SET, encoding="utf-8") as file:
            self.job_set = yaml.safe_load(file)
        self.certificates = Certificates(self.path("certificates"))
        self.ports = {}

    def pod(self, name):
        jobs = self.job_set["spec"]["replicatedJobs"]
        return next(job for job in jobs if job["name"] == name)["template"]["spec"]["template"]["spec"]

    def here(self, name, word):
        """An argument of a pod, on one machine: claims and mounts are folders of the test, peers and ports its own."""
        for mount in self.pod(name)["containers"][0]["volumeMounts"]:
            if mount["name"] in ("shared", "job", "tls"):
                word = word.replace(mount["mountPath"], self.path(mount["name"] + (f"-{name}" if mount["name"] == "tls" else "")))
        # The learner by the name that a JobSet gives, SET-JOB-0-0.SET, the reward server by its Service.
        word = re.sub(r"sluice-job-(?:rank-0-0\.sluice-job|reward):(\d+)", r"127.0.0.1:\1", word)
        return re.sub(r":(7\d\d\d)$", lambda found: ":" + self.port(found[1]), word)

    def port(self, declared):
        if declared not in self.ports:
            self.ports[declared] = harness.free_address().rpartition(":")[2]
        return self.ports[declared]

    def start_pod(self, name):
        pod = self.pod(name)
        secret = next(volume for volume in pod["volumes"] if volume["name"] == "tls")["secret"]["secretName"]
        role = re.fullmatch(r"sluice-(\w+)-tls", secret)[1]
        os.makedirs(self.path(f"tls-{name}"), exist_ok=True)
        for key, source in (("ca.crt", "ca.crt"), ("tls.crt", f"{role}.crt"), ("tls.key", f"{role}.key")):
            with open(self.certificates.path(source), "rb") as file, open(self.path(f"tls-{name}", key), "wb") as copy:
                copy.write(file.read())
        box = pod["containers"][0]
        return self.start(name, *box["command"], *(self.here(name, word) for word in box["args"]))

    def ready(self, process, name):
        """As its readiness probe finds it."""
        probe = self.pod(name)["containers"][0]["readinessProbe"]["grpc"]
        address = "127.0.0.1:" + self.port(str(probe["port"]))

        def look():
            try:
                return harness.grpc_health(address) == harness.SERVING
            except OSError:
                return False
        wait_until(look, f"{name} is ready", alive=[process])

    def test_it_trains_over_tls_and_goes_on_after_an_eviction(self):
        shared = self.path("shared")
        os.makedirs(os.path.join(shared, "data"))
        events = harness.write_events(self.path("events.csv"))
        spec = harness.prepare_spec(events, os.path.join(shared, "data", "current"))
        spec["prepare"]["ranker"] = {"sequential": False}
        self.run_job(spec)
        os.makedirs(self.path("job"))
        with open(self.path("job", "job.yaml"), "w", encoding="utf-8") as file:
            json.dump(harness.rl_spec(os.path.join(shared, "data", "current"), steps=STEPS), file)
        folder = os.path.join(shared, "runs", "sluice-job")

        reward = self.start_pod("reward")
        self.ready(reward, "reward")
        learner = self.start_pod("rank")
        self.ready(learner, "rank")
        actor = self.start_pod("actor")
        self.ready(actor, "actor")
        wait_until(lambda: harness.checkpoints(folder), "a checkpoint", alive=[learner])
        actor.pause()  # so that the eviction comes in the middle
        self.assertFalse(os.path.exists(os.path.join(folder, "results.json")), "the job was too fast to be disturbed")
        learner.terminate()
        actor.resume()
        self.assertEqual(learner.wait(), PREEMPTED, learner.said())

        learner = self.start_pod("rank")
        self.assertEqual(learner.wait(), DONE, learner.said())
        self.assertIn("resumed from the checkpoint of step", learner.said())
        self.check_rl_results(folder, STEPS, 16)
        self.assertFalse(actor.ended(), actor.said())
        for process in (actor, reward):
            process.terminate()
            self.assertEqual(process.wait(), DONE, process.said())


@unittest.skipUnless(importlib.util.find_spec("yaml"), "there is no PyYAML here: ./sluice setup")
class RulesTest(unittest.TestCase):
    """What the JobSet's rules make of exit codes, by the controllers of the mini-kubelet, against the page of exit codes."""

    @classmethod
    def setUpClass(cls):
        import yaml
        from kubelet import job_scenario, jobs
        cls.scenario, cls.jobs = job_scenario, jobs
        with open(JOB_SET, encoding="utf-8") as file:
            cls.job_set = yaml.safe_load(file)
        cls.job = {one["name"]: one["template"]["spec"] for one in cls.job_set["spec"]["replicatedJobs"]}

    def end(self, name, code, disrupted=False):
        return self.jobs.action_on_pod(self.job[name], self.jobs.End({name: code}, disrupted))

    def test_every_exit_code_of_the_learner_is_taken_as_the_page_says(self):
        codes = self.scenario.contract()
        self.assertEqual(sorted(codes), [0, 1, 2, 3, 4, 10, 11, 12, 13, 14])
        self.assertEqual({code: self.end("rank", code) for code in codes}, codes)
        self.assertEqual((codes[2], codes[10], codes[11]), ("FailJob", "Ignore", "Count"))
        for code in (128, 134, 137, 139, 143):  # a container that could not start, and signals
            self.assertEqual(self.end("rank", code), "Count", code)

    def test_an_eviction_counts_for_nobody_whatever_the_code(self):
        for name in self.job:
            for code in (1, 2, 11, 137):
                self.assertEqual(self.end(name, code, disrupted=True), "Ignore", (name, code))
            self.assertEqual(self.end(name, 0, disrupted=True), "Succeeded", "which is why helpers want spare completions")
            self.assertEqual(self.end(name, 137), "Count")

    def test_the_set_fails_with_its_learner_and_starts_again_for_a_helper(self):
        for reason in ("PodFailurePolicy", "BackoffLimitExceeded"):
            self.assertEqual(self.jobs.action_on_job(self.job_set["spec"], "rank", reason), "FailJobSet")
            for name in ("reward", "actor"):
                self.assertEqual(self.jobs.action_on_job(self.job_set["spec"], name, reason), "RestartJobSet")

    def test_rules_go_by_their_order_and_no_field_is_passed_over(self):
        rules = [{"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [7]}},
                 {"action": "FailJob", "onExitCodes": {"containerName": "a", "operator": "In", "values": [7, 8]}}]
        job = {"podFailurePolicy": {"rules": rules}}
        ended = lambda **codes: self.jobs.action_on_pod(job, self.jobs.End(codes))
        self.assertEqual((ended(a=8), ended(a=7), ended(b=7), ended(a=0, b=7)), ("Count", "FailJob", "Count", "Count"))
        self.assertEqual(ended(a=0, b=0), "Succeeded")
        self.assertEqual(self.jobs.action_on_job({}, "a", "x"), "FailJobSet")
        self.assertEqual(self.jobs.action_on_job({"failurePolicy": {"rules": []}}, "a", "x"), "RestartJobSet")
        rules[0]["onPods"] = []
        with self.assertRaisesRegex(Exception, "onPods"):
            ended(a=8)


if __name__ == "__main__":
    harness.main()

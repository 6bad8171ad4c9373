"""An overlay's pods run as they are declared, talk as the policies say, train and drain; and planted bugs are named."""

import concurrent.futures
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mini_kubelet
from kubelet import network, plants, pods, sandbox

TOGETHER = 2  # runs at once; each has namespaces of its own


class KubeletTest(unittest.TestCase):
    def test_dev_cpu_trains_loses_a_learner_and_drains_as_it_is_declared(self):
        answer = mini_kubelet.call("overlay", os.path.join(mini_kubelet.RENDERED, "dev-cpu.yaml"))
        print(answer.stdout)
        self.assertEqual(answer.returncode, 0, answer.stdout)

    def test_the_same_for_a_client_with_a_token_in_place_of_a_certificate(self):
        answer = mini_kubelet.call("overlay", os.path.join(mini_kubelet.RENDERED, "dev-cpu.yaml"), "--component", "tokens")
        print(answer.stdout)
        self.assertEqual(answer.returncode, 0, answer.stdout)

    def test_fields_that_no_overlay_uses_yet_do_what_they_say(self):
        answer = mini_kubelet.call("parts")
        self.assertEqual(answer.returncode, 0, answer.stdout)

    def test_planted_bugs_are_named(self):
        check_planted(self, [bug for bug in plants.PLANTS if bug.in_test and not bug.part])


def check_planted(test, bugs):
    with concurrent.futures.ThreadPoolExecutor(TOGETHER) as executor:
        answers = executor.map(lambda bug: mini_kubelet.call("plant", bug.name), bugs)
        for bug, answer in zip(bugs, answers):
            with test.subTest(bug.name):
                test.assertEqual(answer.returncode, 0, f"{bug.says}: want {bug.finding}: {answer.stdout}")


def check_run(test, flag):
    """The run of RUNS that has this flag."""
    title, arguments = next(run for run in mini_kubelet.RUNS if flag in run[1])
    answer = mini_kubelet.call(*mini_kubelet.with_paths(arguments))
    print(answer.stdout)
    test.assertEqual(answer.returncode, 0, f"{title}: {answer.stdout}")


class TrainJobTest(unittest.TestCase):
    def test_what_trainer_makes_of_the_runtime_trains_and_ends_with_the_very_same_parameters(self):
        check_run(self, "--train-job")


class JobSetTest(unittest.TestCase):
    def test_a_jobset_survives_what_its_rules_are_for_and_ends_with_the_very_same_parameters(self):
        check_run(self, "--job")

    def test_planted_bugs_are_named(self):
        check_planted(self, [bug for bug in plants.PLANTS if bug.in_test and bug.part])


class PartsTest(unittest.TestCase):
    def test_variables_are_put_in_as_the_api_says(self):
        self.assertEqual(pods.expand("$(A)-$$(A)-$(B)-$A", {"A": "x"}), "x-$(A)-$(B)-$A")

    def test_the_dns_server_tells_a_name_without_addresses_from_one_that_is_not_there(self):
        query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x01b\x00\x00\x01\x00\x01"
        found = network.answer(query, {"a.b": ["10.0.0.1", "10.0.0.2"]})
        self.assertEqual((found[:2], found[3] & 15, found[6:8], found[-4:]), (b"\x12\x34", 0, b"\x00\x02", b"\x0a\x00\x00\x02"))
        self.assertEqual(network.answer(query, {"a.b": []})[3] & 15, 0)
        self.assertEqual(network.answer(query, {})[3] & 15, 3)
        six = query[:-3] + b"\x1c\x00\x01"  # an address of version 6 of a name that has others
        self.assertEqual((network.answer(six, {"a.b": ["10.0.0.1"]})[3] & 15, network.answer(six, {"a.b": ["10.0.0.1"]})[7]), (0, 0))


if __name__ == "__main__":
    REASON = sandbox.why_not()
    if REASON:
        print(f"skipped: {REASON}")
        sys.exit(sandbox.SKIPPED)
    unittest.main(verbosity=2)

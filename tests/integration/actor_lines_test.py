"""What actors say about a job is in the job's log, also what the reward server tells them."""

import harness
from harness import DONE, wait_until
from sick_ranker_test import Sick


class ActorLinesTest(harness.SluiceTest):
    def logs(self, cluster, *flags):
        """The lines that `sluicectl logs` prints for the only job."""
        answer = cluster.ctl("logs", cluster.job()["job_id"], *flags, name="logs")
        self.assertEqual(answer.wait(), DONE, answer.said())
        return answer.said().splitlines()

    def wait_for_line(self, cluster, pattern, *flags):
        return wait_until(lambda: [line for line in self.logs(cluster, *flags) if pattern in line],
                          f"a line with '{pattern}'")[0]

    def test_an_actor_that_cannot_work_and_a_reward_server_that_answers_wrongly_are_in_the_jobs_log(self):
        cluster = harness.Cluster(self, self.prepare(ranker={"sequential": False}), ranks=1)
        sick = Sick(self, cluster.data)
        sick.be("nan")
        cluster.start_coordinator()
        cluster.start_rank()
        cluster.actor_flags = ["--actor-id", "without-reward"]
        cluster.start_actor()
        cluster.reward_address = sick.address
        cluster.actor_flags = ["--actor-id", "with-reward"]
        cluster.start_actor()
        watch = cluster.submit(harness.rl_spec(cluster.data, steps=100000, on_reward_outage="nll_only",
                                               reward={"ranker": "cooccurrence", "deadline_s": 1, "park_s": 0.2}))
        cluster.run_folder(alive=[watch])

        unfit = self.wait_for_line(cluster, "this actor cannot work on the job", "--role", "actor", "--level", "error")
        self.assertRegex(unfit, r"^\d\d:\d\d:\d\d actor without-reward: error: this actor cannot work on the job: "
                                r"error=job \S+ asks ranker cooccurrence for scores; start the actor with --reward")
        unscored = self.wait_for_line(cluster, "without scores", "--role", "actor", "--grep", "not finite|is nan")
        self.assertRegex(unscored, r"^\d\d:\d\d:\d\d actor with-reward: warning: groups of a lease came back without scores: ")
        sick.be("well")
        self.wait_for_line(cluster, "actor with-reward: scores are there again", "--role", "actor", "--rank", "0")

        self.assertEqual(self.logs(cluster, "--role", "actor", "--rank", "1"), [])
        self.assertFalse([line for line in self.logs(cluster, "--role", "learner") if "actor with-reward" in line])
        self.assertTrue([line for line in self.logs(cluster) if "actor with-reward: working for a job" in line])


if __name__ == "__main__":
    harness.main()

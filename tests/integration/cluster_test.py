"""Coordinator, two ranks, reward server and two actors: one rl job, submitted and followed by sluicectl."""

import os

import harness
from harness import DONE

STEPS = 8


class ClusterTest(harness.SluiceTest):
    def test_a_submitted_job_is_trained_by_the_whole_group_and_everything_can_be_seen_from_outside(self):
        cluster = harness.Cluster(self, self.prepare(), ranks=2)
        servers = [cluster.start_coordinator(), cluster.start_reward(), cluster.start_rank("rank-a"),
                   cluster.start_rank("rank-b"), cluster.start_actor("actor-a"), cluster.start_actor("actor-b")]
        spec = harness.rl_spec(cluster.data, steps=STEPS, validation={"every": 4, "users": 20, "beams": 10},
                               reward={"ranker": "blend"})
        watch = cluster.submit(spec)
        self.assertEqual(watch.wait(), DONE, watch.said())

        folder = cluster.run_folder()
        results, trained = self.check_rl_results(folder, STEPS, 16)
        self.assertEqual(results["numbers"]["ledger"]["issued"], STEPS * 16)
        self.assertLessEqual(max(row["staleness/max"] for row in trained), 2)
        self.assertEqual({row["gate/reward_unavailable"] for row in trained}, {0})
        validated = [row["step"] for row in harness.read_metrics(folder) if "validation/hr@10" in row]
        self.assertEqual(validated, [0, 4, 8])

        job = cluster.job()
        self.assertEqual(job["state"], "succeeded")
        self.assertEqual(int(job["step"]), STEPS)
        self.assertEqual(int(job["ledger"]["trained"]), STEPS * 16)
        self.assertEqual(job["run_folder"], folder)
        self.assertEqual(job["results"]["report"], os.path.join(folder, "report.html"))
        self.assertIn("step 0: validation HR@10", self.check_call("logs", "sluicectl", "--server", cluster.address, "logs",
                                                                  job["job_id"]).said())

        samples = {}
        for server in servers:
            self.assertEqual(harness.grpc_health(server.address), harness.SERVING, server.name)
            samples[server.name] = harness.scrape(server.metrics)
            self.assertTrue(samples[server.name], server.name)
            for name in samples[server.name]:
                self.assertTrue(name.startswith(("sluice_", "exposer_", "process_")), name)
        trained_by = [sum(value for name, value in samples[rank].items() if name.startswith("sluice_groups_total")
                          and 'trained' in name) for rank in ("rank-a", "rank-b")]
        self.assertEqual(trained_by, [STEPS * 8, STEPS * 8])
        sampled = [samples[actor]["sluice_groups_sampled_total"] for actor in ("actor-a", "actor-b")]
        self.assertGreaterEqual(sum(sampled), STEPS * 16)
        self.assertGreater(min(sampled), 0)  # one actor for each rank
        self.assertEqual(samples["coordinator"]["sluice_coordinator_members"], 2)

        # Whoever works stops first; nobody needs to be killed.
        for server in reversed(servers):
            server.terminate()
            self.assertEqual(server.wait(), DONE, server.said())

    def test_a_job_that_cannot_work_fails_with_the_reason_and_the_next_one_runs(self):
        cluster = harness.Cluster(self, self.prepare(ranker={"sequential": False}), ranks=2)
        self.assertEqual(cluster.ctl("list").wait(), harness.TRANSIENT)  # nobody there yet
        cluster.start_coordinator()
        misspelt = dict(harness.rl_spec(cluster.data), sft={"pases": 1})
        refused = cluster.submit(misspelt)
        self.assertEqual(refused.wait(), harness.USAGE, refused.said())
        self.assertIn("did you mean passes", refused.said())
        self.assertEqual(cluster.json("list")["jobs"], [])
        ranks = [cluster.start_rank(), cluster.start_rank()]
        sft = {"name": "lost", "kind": "sft", "data": self.path("nowhere"), "model": harness.model_spec(),
               "sft": {"passes": 2, "targets_per_step": 100, "validation": {"beams": 10}}}
        failing = cluster.submit(sft)
        self.assertEqual(failing.wait(), harness.INTEGRITY, failing.said())
        self.assertIn("nowhere", failing.said())
        job = cluster.job()
        self.assertEqual((job["state"], job["exit_code"]), ("failed", harness.INTEGRITY))
        self.assertIn("nowhere", job["message"])
        following = cluster.submit(dict(sft, name="found", data=cluster.data))
        self.assertEqual(following.wait(), DONE, following.said())
        for rank in ranks:
            self.assertFalse(rank.ended())

    def test_a_whole_pipeline_of_jobs_runs_through_the_queue_one_after_the_other(self):
        events = harness.write_events(self.path("events.csv"))
        data = self.path("data")
        cluster = harness.Cluster(self, data, ranks=2)
        cluster.start_coordinator()
        # Submitted before any rank is there.
        specs = [dict(harness.prepare_spec(events, data), name="first"),
                 {"name": "second", "kind": "sft", "data": data, "model": harness.model_spec(),
                  "sft": {"passes": 10, "targets_per_step": 100, "dropout": 0, "optimizer": {"learning_rate": 0.01},
                          "validation": {"every": 5, "beams": 10}}}]
        for spec in specs:
            submitted = cluster.ctl("submit", self.spec(spec["name"], spec))
            self.assertEqual(submitted.wait(), DONE, submitted.said())
        self.assertEqual([job["state"] for job in cluster.json("list")["jobs"]], ["queued", "queued"])
        ranks = [cluster.start_rank(), cluster.start_rank()]
        harness.wait_until(lambda: all(job["state"] == "succeeded" for job in cluster.json("list")["jobs"]),
                           "both jobs succeed", alive=ranks)
        sft = cluster.json("describe", cluster.json("list")["jobs"][0]["job_id"])
        third = {"name": "third", "kind": "evaluate", "data": data, "model": {"path": sft["run_folder"]},
                 "evaluate": {"beams": 20}}
        watch = cluster.submit(third)
        self.assertEqual(watch.wait(), DONE, watch.said())
        latest = cluster.json("describe", cluster.json("list")["jobs"][0]["job_id"])
        numbers = harness.read_json(latest["run_folder"], "results.json")["numbers"]
        self.assertEqual(numbers["metrics"]["prompts"], harness.USERS)
        self.assertGreater(numbers["metrics"]["hr@1"], 0.2)
        # Two ranks evaluate like one.
        _, alone = self.run_job(third, name="alone")
        by_one = harness.read_json(alone, "results.json")["numbers"]["metrics"]
        self.assertEqual(by_one.keys(), numbers["metrics"].keys())
        for name, value in by_one.items():
            self.assertAlmostEqual(value, numbers["metrics"][name], places=6, msg=name)


if __name__ == "__main__":
    harness.main()

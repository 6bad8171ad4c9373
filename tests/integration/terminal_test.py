"""A researcher's terminal against real processes: pause over a restart, kill, fork, first cause, files, evaluation and
comparison, pushed data."""

import json
import os
import signal
import socket
import subprocess
import threading

import certificates
import harness
from harness import CANCELLED, DONE, INTEGRITY, PERMISSION, TRANSIENT, USAGE


class TerminalTest(harness.SluiceTest):
    def setUp(self):
        self.variables = {"SLUICE_CONFIG": self.path("contexts.yaml")}
        self.cluster = harness.Cluster(self, self.prepare(ranker={"sequential": False}), ranks=1)

    def sft(self, **changes):
        """Trains for minutes unless it is told otherwise."""
        spec = {"name": "long", "kind": "sft", "data": self.cluster.data, "model": harness.model_spec(),
                "sft": {"passes": 100000, "targets_per_step": 100, "dropout": 0, "validation": {"every": 0, "beams": 10}},
                "checkpoint": {"every": 50}}
        spec["sft"].update(changes)
        return spec

    def ctl(self, *arguments, code=DONE):
        """(standard output, standard error) of sluicectl."""
        environment = dict(os.environ, NO_COLOR="1", **self.variables)
        answer = subprocess.run([os.path.join(harness.BIN, "sluicectl"), "--server", self.cluster.address,
                                 "--timeout", "60", *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=harness.LIMIT_S, text=True, env=environment)
        self.assertEqual(answer.returncode, code, f"{arguments}: {answer.stdout}{answer.stderr}")
        return answer.stdout, answer.stderr

    def submit(self, values, *flags):
        return self.ctl("submit", self.spec(values["name"], values), *flags)[0].strip()

    def wait_for(self, job, condition, what):
        return harness.wait_until(lambda: (lambda d: d if condition(d) else None)(self.cluster.json("describe", job)),
                                  f"{job} {what}")

    def test_a_job_is_paused_over_a_restart_resumed_killed_and_forked(self):
        coordinator = self.cluster.start_coordinator()
        rank = self.cluster.start_rank()
        job = self.submit(self.sft())
        self.wait_for(job, lambda d: d["last_checkpoint"], "has a checkpoint")
        self.ctl("pause", job)
        paused = self.wait_for(job, lambda d: d["state"] == "paused", "is paused")
        at = int(paused["last_checkpoint"].rpartition("-")[2])
        self.assertIn(f"after the checkpoint of step {at}", paused["message"])
        coordinator.kill()
        self.cluster.start_coordinator()
        self.assertEqual(self.cluster.json("describe", job)["state"], "paused")
        self.assertEqual(self.cluster.json("list", "--state", "paused")["jobs"][0]["job_id"], job)

        _, said = self.ctl("resume", job)
        self.assertIn(paused["last_checkpoint"], said)
        self.wait_for(job, lambda d: d["step"] > at, "went on")
        logs = self.ctl("logs", job, "--grep", "resumed from the checkpoint")[0]
        self.assertIn(f"step {at}", logs)

        self.ctl("kill", job)
        killed = self.cluster.json("describe", job)
        self.assertEqual((killed["state"], killed["exit_code"]), ("cancelled", CANCELLED))
        self.ctl("wait", job, code=CANCELLED)

        # The rank is free for the next one, which begins with what the first one learned.
        fork, said = self.ctl("fork", job, "--set", "sft.passes=2", "--set", "seed=9", "--watch")
        self.assertEqual(fork.count("\n"), 1, fork)
        self.assertIn("succeeded", said)
        forked = self.cluster.json("describe", fork.strip())
        self.assertEqual((forked["forked_from"], forked["state"]), (job, "succeeded"))
        self.assertIn("seed: 9", forked["spec_yaml"])
        self.ctl("delete", job, "--files")
        self.assertFalse(os.path.exists(killed["run_folder"]))
        self.assertTrue(os.path.isdir(forked["fork_checkpoint"]), "the fork's copy does not go with its parent")
        self.ctl("describe", job, code=USAGE)
        self.assertFalse(rank.ended())

    def test_describe_names_the_rank_that_died_and_not_the_last_error(self):
        self.cluster.ranks = 2
        self.cluster.start_coordinator()
        ranks = [self.cluster.start_rank(f"rank-{i}") for i in range(2)]
        job = self.submit(self.sft())
        self.wait_for(job, lambda d: d["step"] > 0, "trains")
        members = self.cluster.json("describe", job)["members"]
        self.assertTrue(all(m["version"] for m in members), members)
        victim = ranks[1]
        place = next(m["rank"] for m in members if m["address"] == victim.address)
        victim.send(signal.SIGKILL)
        cause = self.wait_for(job, lambda d: d["first_cause"] and d["first_cause"].get("cause") == "own",
                              "names its first cause")["first_cause"]
        self.assertIn(f"rank {place} (", cause["text"])
        self.assertIn("was lost", cause["text"])
        shown = self.ctl("describe", job)[0]
        self.assertIn("first cause", shown)
        self.assertIn("was lost", shown)
        self.ctl("kill", job)

    def test_a_failure_of_the_data_is_the_first_cause_and_a_dry_run_on_the_server_says_it_before(self):
        self.cluster.start_coordinator()
        self.cluster.start_rank()
        spec = dict(self.sft(), data=self.path("nowhere"))
        path = self.spec("lost", spec)
        out, _ = self.ctl("submit", path, "--dry-run=server", code=USAGE)
        self.assertRegex(out, r"failed +data +.*nowhere")
        self.assertEqual(self.cluster.json("list")["jobs"], [])
        job = self.ctl("submit", path, "--watch", code=INTEGRITY)[0].strip()
        cause = self.cluster.json("describe", job)["first_cause"]
        self.assertIn("nowhere", cause["text"])
        self.assertEqual((cause["role"], cause["rank"]), ("learner", 0))
        errors = self.ctl("logs", job, "--level", "error", "--rank", "0")[0]
        self.assertIn("nowhere", errors)

    def test_models_are_evaluated_compared_fetched_and_reported_through_the_server(self):
        self.cluster.start_coordinator()
        self.cluster.start_rank()
        jobs = []
        for passes in (1, 20):
            spec = self.sft(passes=passes, optimizer={"learning_rate": 0.01}, validation={"every": 5, "beams": 10})
            jobs.append(self.ctl("submit", self.spec("short", dict(spec, name=f"sft-{passes}")), "--watch")[0].strip())
        # The second one knows its time from the first.
        again = self.spec("again", dict(self.sft(passes=3, validation={"every": 5, "beams": 10}), name="again"))
        plan = json.loads(self.ctl("-o", "json", "submit", again, "--dry-run=server")[0])
        self.assertTrue(plan["admitted"], plan)
        self.assertIn(plan["estimate"]["from"], jobs)
        self.assertGreater(plan["estimate"]["seconds"], 0)

        evaluations = [self.ctl("evaluate", job, "--set", "evaluate.beams=20", "--watch")[0].strip() for job in jobs]
        text, _ = self.ctl("compare", f"one={evaluations[0]}", f"twenty={evaluations[1]}", "--metrics", "hr@5")
        self.assertIn("twenty", text)
        compared = json.loads(self.ctl("-o", "json", "compare", *evaluations, "--metrics", "hr@5")[0])
        self.assertEqual(compared["schema_version"], 1)
        _, said = self.ctl("compare", *jobs, code=PERMISSION)
        self.assertIn("has no outcomes of users", said)

        self.ctl("export", jobs[1], "--to", self.path("model"))
        run = self.cluster.json("describe", jobs[1])["run_folder"]
        self.assertEqual(harness.sha256(self.path("model", "model.safetensors")),
                         harness.sha256(os.path.join(run, "export", "best", "model.safetensors")))
        self.ctl("report", jobs[1], "--to", self.path("report.html"))
        with open(self.path("report.html"), encoding="utf-8") as file:
            self.assertIn("<html", file.read())
        listed = self.cluster.json("artifacts", "list", jobs[1])["artifacts"]
        self.assertIn("metrics.jsonl", [one["path"] for one in listed])
        metrics = json.loads(self.ctl("-o", "json", "metrics", jobs[1], "loss/nll")[0])["metrics"]
        self.assertGreater(len(metrics), 3)
        self.assertEqual([row["step"] for row in metrics], sorted(row["step"] for row in metrics))
        self.assertIn("1 ranks, epoch", self.ctl("doctor")[0])

    def test_a_download_and_a_push_stop_at_a_full_disk_with_its_code(self):
        self.cluster.start_coordinator()
        with open(self.path("large"), "wb") as file:
            file.write(os.urandom(3 << 20))
        _, said = self.ctl("data", "push", self.path("large"), code=PERMISSION)
        self.assertIn("--data-root", said)
        job = self.submit(self.sft())
        folder = os.path.join(self.cluster.runs, job)
        os.makedirs(folder)
        os.link(self.path("large"), os.path.join(folder, "large"))
        stopped = self.start("download", "sluicectl", "--server", self.cluster.address, "artifacts", "download", job,
                             "--to", self.path("to"), max_file_bytes=(2 << 20) + 7)
        self.assertIn(stopped.wait(), (harness.NO_SPACE, -signal.SIGXFSZ), stopped.said())
        self.assertFalse(os.path.exists(self.path("to", "large")), "nothing half-fetched under its name")
        self.ctl("artifacts", "download", job, "--to", self.path("to"))
        self.assertEqual(harness.sha256(self.path("to", "large")), harness.sha256(self.path("large")))

    def test_pushed_events_become_a_data_set_and_a_dry_run_asks_the_ranker(self):
        reward, address, _ = self.start_reward(self.cluster.data)
        coordinator = self.start("coordinator", "sluice-learner", "coordinator", "--address", self.cluster.address, "--runs",
                                 self.cluster.runs, "--data-root", self.path("pushed"), "--reward", address)
        coordinator.wait_for(r"coordinator \w+ address=")
        self.cluster.start_rank()
        events = harness.write_events(self.path("fresh.csv"), seed=11)
        digest = self.ctl("-o", "name", "data", "push", events)[0].strip()
        spec = harness.prepare_spec(f"digest:{digest[:12]}/fresh.csv", self.path("fresh"))
        spec["prepare"]["ranker"] = {"sequential": False}
        self.ctl("submit", self.spec("fresh", spec), "--watch")
        # The data set goes back as one, and a job is given it by its digest alone.
        prepared = self.ctl("-o", "name", "data", "push", self.path("fresh"), "--name", "fresh")[0].strip()
        sft = dict(self.sft(passes=1), name="by-digest", data=f"digest:{prepared}")
        job = self.ctl("submit", self.spec("by-digest", sft), "--watch")[0].strip()
        self.assertTrue(self.cluster.json("describe", job)["spec_yaml"].count(prepared), "the job keeps the path")
        self.assertEqual({one["name"] for one in self.cluster.json("data", "list")["data"]}, {"fresh.csv", "fresh"})
        self.ctl("data", "rm", digest)

        def reward_check(values, code):
            out, _ = self.ctl("-o", "json", "submit", self.spec("rl", values), "--dry-run=server", code=code)
            return next(check for check in json.loads(out)["checks"] if check["name"] == "reward")

        good = reward_check(harness.rl_spec(self.cluster.data), DONE)
        self.assertEqual(good["result"], "ok", good)
        self.assertIn("repeats its golden batch", good["message"])
        other = reward_check(harness.rl_spec(self.path("fresh")), USAGE)
        self.assertIn("scores catalog", other["message"])
        missing = reward_check(harness.rl_spec(self.cluster.data, reward={"ranker": "sequential"}), USAGE)
        self.assertIn("has no ranker 'sequential'", missing["message"])
        reward.kill()
        self.assertIn("no reward server answers", reward_check(harness.rl_spec(self.cluster.data), USAGE)["message"])
        out, _ = self.ctl("doctor", code=TRANSIENT)
        self.assertRegex(out, r"failed +reward")

    def test_contexts_name_coordinators_and_flags_and_variables_win(self):
        self.cluster.start_coordinator()
        plain = dict(os.environ, **self.variables)
        plain.pop("SLUICE_SERVER", None)

        def run(*arguments, **more):
            return subprocess.run([os.path.join(harness.BIN, "sluicectl"), *arguments], stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=harness.LIMIT_S, text=True, env=dict(plain, **more))

        self.assertEqual(run("context", "set", "here", "--server", self.cluster.address).returncode, DONE)
        self.assertEqual(run("context", "set", "gone", "--server", "127.0.0.1:1").returncode, DONE)
        self.assertEqual(run("list").returncode, DONE)  # the first one is the current one
        self.assertEqual(run("--context", "gone", "list").returncode, TRANSIENT)
        self.assertEqual(run("list", SLUICE_CONTEXT="gone").returncode, TRANSIENT)
        self.assertEqual(run("--context", "gone", "list", SLUICE_SERVER=self.cluster.address).returncode, DONE)
        self.assertEqual(run("--server", "127.0.0.1:1", "list", SLUICE_SERVER=self.cluster.address).returncode,
                         TRANSIENT)
        nobody = run("--context", "moon", "list")
        self.assertEqual(nobody.returncode, USAGE)
        self.assertIn("there are gone, here", nobody.stderr)

    def test_a_context_holds_certificates_and_a_token(self):
        if not certificates.available():
            self.skipTest("there is no openssl here; it is in the Debian package openssl")
        files = certificates.Certificates(self.path("tls"))
        secret, _ = self.ctl("token", "create", "ada", "--tokens", self.path("tokens"))
        for name, text in (("ada.token", secret), ("forged.token", secret[:-3] + "AA\n")):
            with open(self.path(name), "w", encoding="utf-8") as file:
                file.write(text)
        coordinator = self.start("coordinator", "sluice-learner", "coordinator", "--address", self.cluster.address, "--runs",
                                 self.cluster.runs, "--tokens", self.path("tokens"), *files.flags("coordinator"))
        coordinator.wait_for(r"coordinator \w+ address=")

        def run(*arguments):
            return self.call("ctl", "sluicectl", "--timeout", "20", *arguments)

        made = run("context", "set", "lab", "--server", self.cluster.address, "--tls-ca", files.path("ca.crt"),
                   "--token-file", self.path("ada.token"))
        self.assertEqual(made.code(), DONE, made.said())
        job = run("-q", "submit", self.spec("long", self.sft()))
        self.assertEqual(job.code(), DONE, job.said())
        for command in ("pause", "describe", "resume", "kill", "delete"):
            done = run(command, job.said().strip())
            self.assertEqual(done.code(), DONE, f"{command}: {done.said()}")
        forged = run("--token-file", self.path("forged.token"), "list")
        self.assertEqual(forged.code(), PERMISSION, forged.said())
        plain = run("--server", self.cluster.address, "list")
        self.assertEqual(plain.code(), PERMISSION, plain.said())
        self.assertIn("TLS", plain.said())

    def test_whatever_answers_at_the_address_or_nothing_is_one_sentence_with_its_code(self):
        self.cluster.start_coordinator()
        reward, reward_address, metrics = self.start_reward(self.cluster.data)
        closing, silent = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
        self.addCleanup(closing.close)
        self.addCleanup(silent.close)

        def close_all():
            while True:
                try:
                    closing.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=close_all, daemon=True).start()
        for address, code, sentence in (
                (harness.free_address(), TRANSIENT, "no coordinator answers at"),
                ("no-such-host.invalid:7070", TRANSIENT, "is not known here"),
                ("nonsense", USAGE, "want HOST:PORT"),
                (metrics, PERMISSION, "is no coordinator"),
                (reward_address, PERMISSION, "is no coordinator"),
                (f"127.0.0.1:{closing.getsockname()[1]}", TRANSIENT, "ends every connection at once"),
                (f"127.0.0.1:{silent.getsockname()[1]}", TRANSIENT, "no connection to")):
            process = self.call("asked", "sluicectl", "--server", address, "--timeout", "1", "list")
            self.assertEqual(process.code(), code, f"{address}: {process.said()}")
            self.assertIn(sentence, process.said())
            self.assertEqual(process.said().count("\n"), 1, process.said())
        self.assertFalse(reward.ended())

    def test_a_spec_that_cannot_be_one_is_refused_in_a_sentence(self):
        cases = {"large": b"# " + b"x" * (100 << 20), "deep": b"a: " + b"{a: " * 5000, "binary": bytes(range(256)),
                 "nan": b"kind: rl\ndata: d\nrl: {gate: {tau: .nan}}\n", "empty": b"", "list": b"- a\n"}
        for name, content in cases.items():
            with open(self.path(f"{name}.yaml"), "wb") as file:
                file.write(content)
        os.mkdir(self.path("folder.yaml"))
        for name in [*cases, "folder"]:
            process = self.call(name, "sluicectl", "validate", self.path(f"{name}.yaml"))
            self.assertIn(process.code(), (USAGE, harness.FAILED), f"{name}: {process.said()[:500]}")
            self.assertIn(f"{name}.yaml", process.said())
            self.assertLess(len(process.said()), 2000, name)

    def test_ctrl_c_detaches_and_says_how_to_come_back(self):
        self.cluster.start_coordinator()
        job = self.submit(self.sft())
        watch = self.cluster.ctl("watch", job)
        watch.wait_for("queued")
        watch.send(signal.SIGINT)
        self.assertEqual(watch.wait(), 130, watch.said())
        self.assertRegex(watch.said(), rf"detached; the job goes on. Follow it again with: sluicectl watch {job} --after \d")
        self.assertEqual(self.cluster.json("describe", job)["state"], "queued")

    def test_options_stand_before_the_words_that_start_other_programs(self):
        shown = json.loads(self.ctl("-o", "json", "inspect", "dataset", self.cluster.data)[0])
        self.assertIsInstance(shown, dict)
        self.assertIn("--tau", self.ctl("replay", "--help")[0])
        self.ctl("--no-such", "inspect", "dataset", self.cluster.data, code=USAGE)

    def test_shells_take_the_completion_scripts(self):
        for shell in ("bash", "zsh", "fish"):
            script = self.ctl("completion", shell)[0]
            self.assertIn("sluicectl", script)
            if shell == "bash":
                check = script + '\nCOMP_WORDS=(sluicectl artifacts do); COMP_CWORD=2; _sluicectl; echo "${COMPREPLY[@]}"'
                answer = subprocess.run(["bash", "-c", check], capture_output=True, text=True, timeout=60)
                self.assertEqual(answer.returncode, 0, answer.stderr)
                self.assertEqual(answer.stdout.split()[0], "download", answer.stdout)


if __name__ == "__main__":
    harness.main()

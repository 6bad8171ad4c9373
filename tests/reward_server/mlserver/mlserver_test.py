"""The reward server against MLServer, a server of the Open Inference Protocol that others wrote.

    python3 mlserver_test.py --install     # once: makes .sluice/mlserver with the wheels of requirements.txt
    python3 mlserver_test.py

Skipped (77), with the reason, where that environment is missing or was made for other versions.
"""
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "integration"))
import harness  # noqa: E402

PLACE = os.path.join(harness.TOP, ".sluice", "mlserver")
REQUIREMENTS = os.path.join(HERE, "requirements.txt")
INSTALLED = os.path.join(PLACE, "requirements.txt")  # a copy, written last
SKIPPED = 77


def install():
    shutil.rmtree(PLACE, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
    subprocess.run([os.path.join(PLACE, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                    "--no-input", "--no-deps", "-r", REQUIREMENTS], check=True)
    shutil.copy(REQUIREMENTS, INSTALLED)


def is_installed():
    try:
        return harness.sha256(INSTALLED) == harness.sha256(REQUIREMENTS)
    except FileNotFoundError:
        return False


class MlserverTest(harness.SluiceTest):
    def start_mlserver(self):
        """Returns the address of its gRPC port."""
        folder = self.path("ranker")
        os.mkdir(folder)
        shutil.copy(os.path.join(HERE, "own_model.py"), folder)
        http, grpc, metrics = (harness.free_address() for _ in range(3))
        ports = {f"{name}_port": int(address.split(":")[1])
                 for name, address in (("http", http), ("grpc", grpc), ("metrics", metrics))}
        tensors = [("user", [-1]), ("history", [-1, -1]), ("item", [-1])]
        files = {"settings.json": {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports},
                 "model-settings.json": {
                     "name": "ranker", "implementation": "own_model.OwnModel", "parameters": {"version": "v3"},
                     "inputs": [{"name": name, "datatype": "INT64", "shape": shape} for name, shape in tensors],
                     "outputs": [{"name": "heads", "datatype": "FP32", "shape": [-1, 2]}]}}
        for name, values in files.items():
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                json.dump(values, file)
        log = self.path("mlserver.log")
        server = harness.Process("mlserver", [os.path.join(PLACE, "bin", "mlserver"), "start", folder], log)
        self.processes.append(server)
        server.wait_for("gRPC server running")
        return grpc

    def mapping(self, address, **changes):
        where = {"address": address, "model": "ranker", **changes}
        path = self.path("mine.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"name": "mine", "open_inference": where,
                       "inputs": {"user": {"from": "user"}, "history": {"from": "history"}, "item": {"from": "item"}},
                       "outputs": {"score": {"output": "heads", "column": 0}, "click": {"output": "heads", "column": 1}},
                       "golden": {"groups": [{"user": 1, "history": [3, 4], "items": [5, 6],
                                              "scores": {"score": [53, 63], "click": [106, 126]}}]}}, file)
        return path

    def test_scores_come_raw_and_typed_and_a_job_trains_on_them(self):
        address = self.start_mlserver()
        data = self.prepare(ranker={"sequential": False})
        for contents in ("raw", "typed"):
            self.check_call("check", "sluice-reward", "--data", data, "--check", "--ranker",
                            self.mapping(address, contents=contents))
        reward = self.start("reward", "sluice-reward", "--data", data, "--address", "127.0.0.1:0", "--ranker",
                            self.mapping(address, version="v3"))
        served = reward.wait_for(r"serving address=(\S+)").group(1)
        learner, folder = self.start_rl(harness.rl_spec(data, steps=2, objective="mixture",
                                                        reward={"ranker": "mine", "head": "click", "deadline_s": 20}))
        self.start_actor("--learner", learner.address, reward=served)
        self.assertEqual(learner.wait(), harness.DONE, learner.said())
        self.check_rl_results(folder, 2, 16)

    def test_a_model_that_is_not_there_is_said(self):
        address = self.start_mlserver()
        data = self.prepare(ranker={"sequential": False})
        mapping = self.mapping(address, model="nobody", start_s=0)
        reward = self.call("refused", "sluice-reward", "--data", data, "--check", "--ranker", mapping)
        self.assertNotEqual(reward.code(), harness.DONE)
        self.assertIn("nobody", reward.said())


if __name__ == "__main__":
    if "--install" in sys.argv[1:]:
        install()
        sys.exit(0)
    if not is_installed():
        print("skipped: MLServer is not installed; 'python3 tests/reward_server/mlserver/mlserver_test.py --install' does that")
        sys.exit(SKIPPED)
    harness.main()

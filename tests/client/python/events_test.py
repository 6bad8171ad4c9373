"""The event files that a job writes while it runs, by TensorBoard's own reader and byte by byte by the package's writer."""
import os
import sys

import support

support.require("grpc", "numpy", "tensorboard")
sys.path.insert(0, os.path.join(support.TOP, "tests", "integration"))
import harness  # noqa: E402
import numpy  # noqa: E402
from sluice.mirror import tensorboard  # noqa: E402
from sluice.mirror.target import Row  # noqa: E402
from tensorboard.backend.event_processing import event_accumulator  # noqa: E402

if not os.path.exists(os.path.join(harness.BIN, "sluice-learner")):
    support.skip(f"there is no sluice-learner in {harness.BIN}")


def values_of(row):
    return {name: value for name, value in row.items() if name not in ("step", "time_s")}


def measured(folder, last=None):
    """[(step, name, value as float32)] of metrics.jsonl, or of its rows up to `last`."""
    return sorted((row["step"], name, float(numpy.float32(value)))
                  for row in harness.read_metrics(folder)[:last] for name, value in values_of(row).items())


def points_of(reader):
    reader.Reload()
    return sorted((event.step, tag, float(numpy.float32(event.value))) for tag in reader.Tags()["scalars"]
                  for event in reader.Scalars(tag))


class EventsTest(harness.SluiceTest):
    def reader(self, folder):
        # 0: every point, not a sample of them.
        return event_accumulator.EventAccumulator(os.path.join(folder, "tensorboard"), size_guidance={"scalars": 0})

    def files(self, folder):
        return [os.path.join(folder, "tensorboard", name) for name in sorted(os.listdir(os.path.join(folder, "tensorboard")))]

    def spec_of(self, data, passes):
        return {"name": "sft", "kind": "sft", "data": data, "model": harness.model_spec(),
                "sft": {"passes": passes, "targets_per_step": 8, "validation": {"every": 1, "beams": 10}},
                "checkpoint": {"every": 15}}

    def test_what_a_killed_job_wrote_and_its_resume_are_one_run(self):
        spec = self.spec_of(self.prepare(ranker={"sequential": False}), passes=400)
        job, folder = self.start_job(spec)
        harness.wait_until(lambda: harness.last_step(folder) >= 40 and harness.checkpoints(folder), "there is a checkpoint",
                           alive=[job])
        # While it runs: every row that is there, and no other.
        job.pause()
        live = self.reader(folder)
        before = points_of(live)
        # (It may stand still between a line of metrics.jsonl and its event.)
        self.assertIn(before, (measured(folder), measured(folder, -1)))
        self.assertGreater(len(before), 10)
        job.kill()
        (first,) = self.files(folder)
        with open(first, "rb") as file:
            whole = file.read()
        for left in range(1, 40):  # killed in mid-record
            with open(first, "wb") as file:
                file.write(whole + whole[-40:][:left])
            self.assertEqual(points_of(self.reader(folder)), before)

        spec["time_limit_s"] = 8  # it need not do all passes
        done, _ = self.start_job(spec, folder=folder, name="resumed")
        if done.wait() == harness.DONE:
            self.assertIn("resumed from the checkpoint of step", done.said())
        else:
            self.fail(done.said())
        self.assertEqual(len(self.files(folder)), 2)
        want = measured(folder)
        self.assertEqual(points_of(self.reader(folder)), want)
        # A TensorBoard that looked on all the time drops what the resume abandoned too.
        self.assertEqual(points_of(live), want)
        self.assertEqual(live.file_version, 2)

    def test_the_bytes_are_those_of_the_packages_writer(self):
        job, folder = self.start_job(self.spec_of(self.prepare(ranker={"sequential": False}), passes=1))
        self.assertEqual(job.wait(), harness.DONE, job.said())
        (path,) = self.files(folder)
        with open(path, "rb") as file:
            found = file.read()
        reader = self.reader(folder)
        reader.Reload()
        times = {(event.step, tag): event.wall_time for tag in reader.Tags()["scalars"] for event in reader.Scalars(tag)}
        rows = harness.read_metrics(folder)
        self.assertTrue(rows)
        wanted = b""
        for row in rows:
            values = dict(sorted(values_of(row).items()))
            time = times[row["step"], next(iter(values))]
            wanted += tensorboard.record(tensorboard.scalars(Row(row["step"], time, values)))
        self.assertEqual(found[-len(wanted):], wanted)
        self.assertEqual(len(found) - len(wanted), len(tensorboard.record(b"\0" * (9 + 2 + 2 + len("brain.Event:2")))))


if __name__ == "__main__":
    harness.main()

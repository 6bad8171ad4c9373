"""`./sluice proof trackers`: the mirrors of the package `sluice` against a real MLflow server and W&B's own package.

Installs what requirements.txt pins into .sluice/trackers once, builds the wheel, runs the tests of the mirrors there, in
which what is skipped elsewhere runs too, and writes docs/proof/trackers.md.
"""
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
PLACE = os.path.join(TOP, ".sluice", "trackers")
REQUIREMENTS = os.path.join(HERE, "requirements.txt")
INSTALLED = os.path.join(PLACE, "requirements.txt")  # a copy, written last
PAGE = os.path.join(TOP, "docs", "proof", "trackers.md")
TESTS = ("mirror_test.py", "mirror_job_test.py")
LIMIT_S = 900


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def install():
    if read(INSTALLED) == read(REQUIREMENTS):
        return
    print("Installing the wheels pinned in tests/trackers/requirements.txt into .sluice/trackers (950 MB)", flush=True)
    shutil.rmtree(PLACE, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", PLACE], check=True)
    subprocess.run([os.path.join(PLACE, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                    "--no-input", "--no-deps", "-r", REQUIREMENTS], check=True)
    shutil.copy(REQUIREMENTS, INSTALLED)


def install_sluice():
    """Returns the folder that holds the package."""
    site = os.path.join(PLACE, "sluice")
    python = os.path.join(TOP, ".venv", "bin", "python")
    wheel = subprocess.run([python, os.path.join(TOP, "client", "python", "build_wheel.py"), PLACE], check=True,
                           capture_output=True, text=True).stdout.strip()
    shutil.rmtree(site, ignore_errors=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
                    "--no-compile", "--target", site, wheel], check=True)
    return site


def run(test, site):
    """[(name, verdict)] of a file of tests, verdict "passed", "failed" or "skipped"; what it said goes on."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "SLUICE_PYTHON_SITE": site, "SLUICE_MLFLOW": os.path.join(PLACE, "bin", "mlflow"), "GRPC_VERBOSITY": "NONE"}
    done = subprocess.run([os.path.join(PLACE, "bin", "python"), "-B", os.path.join(TOP, "tests", "client", "python", test)],
                          env=environment, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    sys.stdout.write(done.stdout + done.stderr)
    words = {"ok": "passed", "FAIL": "failed", "ERROR": "failed", "skipped": "skipped"}
    verdicts = [(name, words[word]) for name, word in re.findall(
        r"(?m)^\w+ \(__main__\.(\w+\.\w+)\) \.\.\. (?:.*\n)*?(ok|FAIL|ERROR|skipped)\b", done.stderr)]
    if done.returncode != 0 and not any(verdict == "failed" for _, verdict in verdicts):
        verdicts.append((test, "failed"))
    return verdicts


def main():
    install()
    site = install_sluice()
    verdicts = [verdict for test in TESTS for verdict in run(test, site)]
    pinned = dict(re.findall(r"(?m)^(mlflow|wandb)==(\S+)$", read(REQUIREMENTS)))
    # Of those that need a tracker or its package; the others run with every test run.
    real = [(name, verdict) for name, verdict in verdicts if re.match(r"RealMlflow|Wandb", name) and "without" not in name]
    counts = ", ".join(f"{sum(verdict == word for _, verdict in verdicts)} {word}" for word in ("passed", "failed", "skipped"))
    with open(PAGE, "w", encoding="utf-8") as page:
        page.write("# Trackers\n\nThe mirrors of the Python package against a real MLflow server and W&B's own package, whose\n"
                   "`wandb sync` sends to an imitation of its service: nothing was sent to W&B.\n"
                   "`./sluice proof trackers` runs it and writes this page; the tests `client_python.mirror` and\n"
                   "`client_python.mirror_job` hold the same mirrors against a strict fake of MLflow on every test run.\n\n"
                   f"{datetime.date.today()}, {platform.machine()}, mlflow {pinned['mlflow']}, wandb {pinned['wandb']}; "
                   f"{counts} (what needs TensorBoard's reader is skipped here).\n\n| test | verdict |\n| --- | --- |\n")
        for name, verdict in real:
            page.write(f"| {name.partition('.')[2].removeprefix('test_').replace('_', ' ')} | {verdict} |\n")
    print(f"docs/proof/trackers.md: {counts}")
    failed = any(verdict == "failed" for _, verdict in verdicts)
    return 1 if failed or not real or any(verdict != "passed" for _, verdict in real) else 0


if __name__ == "__main__":
    sys.exit(main())

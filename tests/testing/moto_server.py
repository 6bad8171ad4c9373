"""Runs a test binary against moto's S3, which checks signatures as Amazon does.

    python3 moto_server.py BINARY [ARGS]

Starts moto's server on a free port of loopback, makes a user with a key, a second one whom no policy allows anything,
temporary credentials of a role, and a bucket. Then runs BINARY with SLUICE_TEST_S3_ENDPOINT, SLUICE_TEST_S3_BUCKET, the
first user's keys in AWS_*, and the others' in SLUICE_TEST_S3_POWERLESS_{KEY,SECRET} and SLUICE_TEST_S3_ROLE_{KEY,SECRET,TOKEN}.
Ends with its exit code, or with 77 (skipped) where moto is not installed.
"""

import ctypes
import html
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request

SKIPPED = 77
PR_SET_PDEATHSIG = 1
LIMIT_S = 90  # for the start; generous, as machines are loaded
BUCKET = "sluice-test"
REGION = "us-east-1"
ANYONE = json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}]})
ALL_OF_S3 = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]})
# Requests that moto executes for anyone; it checks the signature of every later one.
UNCHECKED_REQUESTS = 9


def die_with_parent():
    """In the child, before exec: killed when this process dies, by a timeout of ctest, say."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Moto:
    def __enter__(self):
        environment = dict(os.environ, INITIAL_NO_AUTH_ACTION_COUNT=str(UNCHECKED_REQUESTS), PYTHONUNBUFFERED="1")
        # -p 0: the system chooses, and the server says which.
        self.process = subprocess.Popen([sys.executable, "-B", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
                                        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        preexec_fn=die_with_parent)
        for line in self.process.stdout:
            found = re.search(r"Running on http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.endpoint = f"http://127.0.0.1:{found.group(1)}"
                # It writes a line for each request and must never wait for a reader.
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return self
            sys.stderr.write(line)
        raise SystemExit(f"moto's server ended with {self.process.wait()} before it listened")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def ask(self, service, path="/", form=None):
        """A request that is signed by nobody: one of the unchecked."""
        scope = f"Credential=nobody/20260101/{REGION}/{service}/aws4_request"
        request = urllib.request.Request(
            self.endpoint + path, method="POST" if form else "PUT",
            data=urllib.parse.urlencode(form).encode() if form else None,
            headers={"Authorization": f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=0"})
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.read().decode()

    def iam(self, action, **arguments):
        return self.ask("iam", form={"Action": action, "Version": "2010-05-08", **arguments})

    def user(self, name):
        """A new user's key and secret."""
        self.iam("CreateUser", UserName=name)
        return fields(self.iam("CreateAccessKey", UserName=name), "AccessKeyId", "SecretAccessKey")

    def role(self, name):
        """Key, secret and session token of a new role that may do anything with S3."""
        arn, = fields(self.iam("CreateRole", RoleName=name, AssumeRolePolicyDocument=ANYONE), "Arn")
        self.iam("PutRolePolicy", RoleName=name, PolicyName="all", PolicyDocument=ALL_OF_S3)
        answer = self.ask("sts", form={"Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": arn,
                                       "RoleSessionName": "test"})
        return fields(answer, "AccessKeyId", "SecretAccessKey", "SessionToken")


def fields(xml, *names):
    return [html.unescape(re.search(f"<{name}>(.*?)</{name}>", xml).group(1)) for name in names]


def main():
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"
    try:
        import moto.server  # noqa: F401  # whether it and what it needs are there
    except ImportError as error:
        print(f"skipped: moto is not installed ({error}); ./sluice test installs tests/common/object_store/requirements.txt")
        return SKIPPED
    with Moto() as server:
        key, secret = server.user("sluice")
        others = {}
        others["POWERLESS_KEY"], others["POWERLESS_SECRET"] = server.user("powerless")
        others["ROLE_KEY"], others["ROLE_SECRET"], others["ROLE_TOKEN"] = server.role("trainer")
        server.iam("PutUserPolicy", UserName="sluice", PolicyName="all", PolicyDocument=ALL_OF_S3)
        server.ask("s3", f"/{BUCKET}")
        environment = dict(os.environ, SLUICE_TEST_S3_ENDPOINT=server.endpoint, SLUICE_TEST_S3_BUCKET=BUCKET,
                           AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret, AWS_REGION=REGION,
                           **{f"SLUICE_TEST_S3_{name}": value for name, value in others.items()})
        for name in ("AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
            environment.pop(name, None)
        return subprocess.run(sys.argv[1:], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())

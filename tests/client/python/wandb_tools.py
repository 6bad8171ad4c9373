"""What tests of sluice.mirror need for W&B: a reader of its offline files, and a server that `wandb sync` sends them to."""
import gzip
import http.server
import json
import os
import threading


def read_records(folder):
    """The records of the one file below the folder, as messages of the package wandb. The file is LevelDB's log: blocks of
    32 KiB, records `crc uint32 | length uint16 | type` (1 whole, 2 first, 3 middle, 4 last) after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2
    files = [os.path.join(f, n) for f, _, names in os.walk(folder) for n in names if n.endswith(".wandb")]
    assert len(files) == 1, files
    with open(files[0], "rb") as file:
        raw = file.read()
    assert raw[:4] == b":W&B", raw[:16]
    records, at, whole = [], 7, b""
    while at + 7 <= len(raw):
        if at % 32768 > 32768 - 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(raw[at + 4:at + 6], "little"), raw[at + 6]
        whole += raw[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (2, 3):
            continue
        record = wandb_internal_pb2.Record()
        record.ParseFromString(whole)
        whole = b""
        records.append(record)
    return records


class FakeWandb(http.server.ThreadingHTTPServer):
    """As much of W&B's service as `wandb sync` (0.31.0) asks for, of one run: whether the run is there, its making, and the
    stream of its history, by line numbers. Useful for: whether a second file of a run goes on behind the first."""

    daemon_threads = True

    def __init__(self):
        self.history, self.exit_codes, self.configs, self.lock = [], [], [], threading.Lock()
        super().__init__(("127.0.0.1", 0), _WandbHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()

    def answer(self, call, values):
        bucket = {"id": "b", "name": values.get("name"), "displayName": "", "historyLineCount": len(self.history)}
        project = {"id": "p", "name": "sluice", "entity": {"id": "e", "name": "me"}}
        if call == "RunResumeStatus":
            if not self.configs:
                return {"model": None}
            return {"model": {**project, "bucket": {
                **bucket, "summaryMetrics": "{}", "config": "{}", "historyTail": json.dumps(self.history[-1:]),
                "eventsTail": "[]", "logLineCount": 0, "eventsLineCount": 0, "tags": [], "notes": "",
                "wandbConfig": '{"t": 1}'}}}
        if call == "UpsertBucket":
            self.configs.append(json.loads(values["config"]))
            return {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}
        if call == "CreateRunFiles":
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": [
                {"name": name, "uploadUrl": f"{self.url}/files"} for name in values["files"]]}}
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}

    def stream(self, values):
        history = values.get("files", {}).get("wandb-history.jsonl")
        if history:
            self.history[history["offset"]:] = history["content"]
        if values.get("complete"):
            self.exit_codes.append(values["exitcode"])
        return {"limits": {}}


class _WandbHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *unused):
        pass

    def body(self):
        raw = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                raw += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(raw) if self.headers.get("Content-Encoding") == "gzip" else raw

    def do_PUT(self):
        self.body()
        self.reply({})

    def do_GET(self):
        self.reply({})

    def do_POST(self):
        values = json.loads(self.body())
        with self.server.lock:
            if self.path.endswith("/file_stream"):
                return self.reply(self.server.stream(values))
            call = values.get("operationName") or "Viewer"
            self.reply({"data": self.server.answer(call, values.get("variables") or {})})

    def reply(self, answer):
        raw = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

"""What W&B's server answers, as far as ``wandb sweep``, ``wandb agent`` and their runs ask: on this machine."""

import itertools
import json
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

KEY = "0" * 40
PROJECT = {"id": "p", "name": "project", "entity": {"id": "e", "name": "entity"}}


def spread(parameters):
    """All trials of a grid, nested where the file is nested, as W&B hands them out."""
    several = []
    for spec in parameters.values():
        if "parameters" in spec:
            several.append(list(spread(spec["parameters"])))
        else:
            several.append(spec["values"] if "values" in spec else [spec["value"]])
    for combination in itertools.product(*several):
        yield dict(zip(parameters, combination, strict=True))


class Server(ThreadingHTTPServer):
    """Says nothing of clients that are killed while they are connected."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Stub:
    """One sweep: hands out its grid, and stops runs by W&B's hyperband rule.

    Attributes:
        url: For ``WANDB_BASE_URL``.
        rows: Of each run, the metric in each row that holds it.
        stopped: Runs that were told to stop.
        asked: Every operation, in order.
    """

    def __init__(self):
        self.sweep, self.text, self.waiting = {}, "", []
        self.rows, self.stopped, self.asked = {}, [], []
        self.lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with stub.lock:
                    answer = json.dumps(stub.answer(self.path, body)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_PUT = do_GET = do_POST

            def log_message(self, *args):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path, body):
        if path.endswith("/file_stream"):
            return self.take_rows(path.split("/")[-2], json.loads(body))
        if not path.endswith("/graphql"):
            self.asked.append(path)
            return {}
        asked = json.loads(body)
        name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])[1]
        self.asked.append(name)
        answer = getattr(self, f"on_{name}", None)
        return {"data": answer(asked.get("variables") or {}) if answer else {}}

    def take_rows(self, run, body):
        """A run's figures, line by line."""
        for line in body.get("files", {}).get("wandb-history.jsonl", {}).get("content", []):
            row = json.loads(line)
            if (metric := row.get(self.sweep["metric"]["name"])) is not None:
                self.rows.setdefault(run, []).append(metric)
        return {}

    def on_Viewer(self, variables):
        return {"viewer": {"id": "u", "entity": "entity", "username": "u", "flags": "{}", "teams": {"edges": []}}}

    def on_UpsertSweep(self, variables):
        self.text, self.sweep = variables["config"], yaml.safe_load(variables["config"])
        self.waiting = list(enumerate(spread(self.sweep["parameters"])))
        return {"upsertSweep": {"sweep": {"name": "sweep", "project": PROJECT}, "configValidationWarnings": []}}

    def on_SweepWithRuns(self, variables):
        return {"project": {"sweep": {"id": "s", "name": "sweep", "config": self.text, "runs": {"edges": []}}}}

    def on_CreateAgent(self, variables):
        return {"createAgent": {"agent": {"id": "agent"}}}

    def on_Heartbeat(self, variables):
        running = list(json.loads(variables["runState"] or "{}"))
        weak = [run for run in running if self.is_weak(run)]
        self.stopped += [run for run in weak if run not in self.stopped]
        commands = [{"type": "stop", "run_id": run} for run in weak]
        if not running and self.waiting:
            number, values = self.waiting.pop(0)
            args = {key: {"value": value} for key, value in values.items()}
            commands = [{"type": "run", "run_id": f"trial{number}", "program": None, "args": args}]
        elif not running:
            commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(commands)}}

    def on_UpsertBucket(self, variables):
        run = {"id": "r", "name": variables["name"], "displayName": variables["name"], "project": PROJECT}
        return {"upsertBucket": {"bucket": run, "inserted": True}}

    def on_CreateRunFiles(self, variables):
        files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def is_weak(self, run):
        """W&B's hyperband: is the figure at the last look worse than that of the best 1/eta?"""
        early = self.sweep.get("early_terminate")
        if early is None:
            return False
        sign = -1 if self.sweep["metric"]["goal"] == "maximize" else 1
        eta, look, weak = early.get("eta", 3), early["min_iter"], False
        while look <= len(self.rows.get(run, [])):
            there = sorted(sign * rows[look - 1] for rows in self.rows.values() if len(rows) >= look)
            weak = sign * self.rows[run][look - 1] > there[int(len(there) / eta)]
            look *= eta
        return weak

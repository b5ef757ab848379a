"""A `moebius serve` to test clients against: started on a free port, stopped at the end."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("MOEBIUS_BIN", str(ROOT / "build/release/moebius"))
DEMO = str(ROOT / "models/demo")


class Server:
    """`with Server(DEMO, "--max-num-seqs", "64") as server: ... server.url`"""

    def __init__(self, model, *arguments, env=None):
        self.log = tempfile.NamedTemporaryFile("w+", prefix="moebius-serve-", suffix=".log")
        self.command = [BINARY, "serve", model, "--host", "127.0.0.1", "--port", "0", *arguments]
        self.env = {**os.environ, **(env or {})}

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdout=self.log, stderr=subprocess.STDOUT, env=self.env, cwd=ROOT)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", self.output())
            if found:
                self.port = int(found.group(1))
                self.url = f"http://127.0.0.1:{self.port}"
                self.wait_ready(deadline)
                return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.__exit__()
        raise RuntimeError(f"{' '.join(self.command)} did not start:\n{self.output()}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def wait_ready(self, deadline):
        while time.monotonic() < deadline:
            try:
                if self.get("/health/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{self.url} is not ready:\n{self.output()}")

    def output(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def get(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name, labels=""):
        """The sum of a metric's samples whose labels contain `labels`."""
        total, found = 0.0, False
        for line in self.get("/metrics")[1].splitlines():
            head, _, value = line.rpartition(" ")
            if head.split("{")[0] == name and labels in head:
                total, found = total + float(value), True
        assert found, f"{name}{{{labels}}} is not in /metrics"
        return total

    def stop(self, timeout=60):
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def rss_mb(self):
        pages = int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

"""A real Prometheus scrapes a server with load; every query of the Grafana dashboard must return data, and promtool must
find nothing wrong with /metrics."""
import json
import math
import pathlib
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from load import Load
from server import DEMO, ROOT, Server

PROGRAMS = ROOT / "build/clients/prometheus/usr/bin"
DASHBOARD = ROOT / "docs/grafana/moebius.json"
SCRAPE_SECONDS = 1
LOAD_SECONDS = 12
CONFIG = """
global: {scrape_interval: %ds}
scrape_configs:
- job_name: moebius
  static_configs: [{targets: ["127.0.0.1:%d"]}]
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    def __init__(self, folder, target_port):
        self.folder, self.port = folder, free_port()
        (folder / "prometheus.yml").write_text(CONFIG % (SCRAPE_SECONDS, target_port))

    def __enter__(self):
        self.log = open(self.folder / "log", "w")
        self.process = subprocess.Popen(
            [PROGRAMS / "prometheus", f"--config.file={self.folder}/prometheus.yml",
             f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{self.port}"],
            stdout=self.log, stderr=subprocess.STDOUT)
        try:
            self.await_server()
        except BaseException:  # nobody else would stop it
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def await_server(self):
        """It refuses connections, then answers 503 in plain words, then has not scraped yet."""
        deadline = time.monotonic() + 60
        found = None
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.query("up == 1"):
                    return
            except (OSError, AssertionError) as error:
                found = error
            time.sleep(0.2)
        raise RuntimeError(f"Prometheus does not see the server ({found}):\n" + (self.folder / "log").read_text())

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            words = error.read().decode(errors="replace")
            try:
                words = json.loads(words)["error"]
            except (ValueError, KeyError, TypeError):
                pass  # plain, as while it starts
            raise AssertionError(f"{parameters}: HTTP {error.code}: {words}") from error

    def query(self, expression):
        return self.get("query", query=expression)["result"]


def with_variables(dashboard, expression):
    """As Grafana would send it, every variable at its default."""
    values = {"__rate_interval": f"{4 * SCRAPE_SECONDS}s"}
    for variable in dashboard["templating"]["list"]:
        current = variable.get("current", {}).get("value", "")
        values[variable["name"]] = variable.get("allValue") if current == ["$__all"] else current
    replaced = re.sub(r"\$(\w+)", lambda match: values[match.group(1)], expression)
    assert "$" not in replaced, replaced
    return replaced


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """(server, Prometheus) after some seconds of load, which goes on."""
    with Server(DEMO) as server, Load(server.url, num_clients=6) as load:
        with Prometheus(tmp_path_factory.mktemp("prometheus"), server.port) as prometheus:
            time.sleep(LOAD_SECONDS)
            yield server, prometheus
        assert not load.errors


def test_every_panel_has_data(observed):
    _, prometheus = observed
    dashboard = json.loads(DASHBOARD.read_text())
    empty = []
    assert len(panels(dashboard)) > 30
    for panel in panels(dashboard):
        for target in panel["targets"]:
            expression = with_variables(dashboard, target["expr"])
            values = [float(series["value"][1]) for series in prometheus.query(expression)]
            if not any(math.isfinite(value) for value in values):
                empty.append(f"{panel['title']}: {expression} -> {values}")
    assert not empty, "\n".join(empty)


def test_variables_find_the_server(observed):
    _, prometheus = observed
    dashboard = json.loads(DASHBOARD.read_text())
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        metric, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
        assert prometheus.get(f"label/{label}/values", **{"match[]": metric}), variable["name"]


def test_limits_are_bounds_of_the_histograms(observed):
    """A limit that is no bucket's bound would find no series."""
    _, prometheus = observed
    dashboard = json.loads(DASHBOARD.read_text())
    metric = {"ttft_limit": "vllm:time_to_first_token_seconds_bucket",
              "tpot_limit": "vllm:request_time_per_output_token_seconds_bucket"}
    for variable in dashboard["templating"]["list"]:
        for limit in variable.get("options", []):
            assert prometheus.query(f'{metric[variable["name"]]}{{le="{limit["value"]}"}}'), limit


def test_what_was_said_adds_up(observed):
    """Prometheus's totals are the server's own, and the load is seen."""
    server, prometheus = observed
    value = lambda expression: float(prometheus.query(expression)[0]["value"][1])
    assert value("sum(rate(vllm:generation_tokens_total[4s]))") > 10
    assert value("max_over_time(vllm:num_requests_running[10s])") >= 2
    assert value("sum(vllm:request_success_total)") <= server.metric("vllm:request_success_total")
    assert value('http_requests_total{handler="/v1/chat/completions",status="2xx"}') > 0
    assert not prometheus.query('http_requests_total{status="5xx"} > 0')


def test_promtool_finds_nothing(observed):
    """Its remarks on style are about names that are vLLM's: a colon, and iteration_tokens_total."""
    server, _ = observed
    check = subprocess.run([PROGRAMS / "promtool", "check", "metrics"], input=server.get("/metrics")[1],
                           capture_output=True, text=True, timeout=60)
    remarks = [line for line in (check.stdout + check.stderr).splitlines()
               if "should not contain ':'" not in line and not line.startswith("vllm:iteration_tokens_total")]
    assert not remarks and check.returncode in (0, 3)

"""aiperf against the server, chat and completions: every request counts, and the client has nothing to warn of."""
import json
import subprocess

import pytest

from server import DEMO, ROOT

NUM_REQUESTS = 24


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_profile(server, tmp_path, endpoint):
    model = json.loads(server.get("/v1/models")[1])["data"][0]["id"]
    command = [str(ROOT / "build/clients/aiperf/bin/aiperf"), "profile", "--model", model, "--url", server.url,
               "--endpoint-type", endpoint, "--streaming", "--tokenizer", DEMO, "--request-count", str(NUM_REQUESTS),
               "--concurrency", "4", "--synthetic-input-tokens-mean", "100", "--output-tokens-mean", "20",
               "--extra-inputs", "ignore_eos:true", "--use-server-token-count", "--ui", "none", "--artifact-dir", str(tmp_path)]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = tmp_path.rglob("profile_export_aiperf.json")
    result = json.loads(path.read_text())
    assert result["request_count"]["avg"] == NUM_REQUESTS
    assert result.get("error_request_count", {"avg": 0})["avg"] == 0
    assert result["output_sequence_length"]["avg"] == 20
    assert result["time_to_first_token"]["avg"] > 0 and result["inter_token_latency"]["avg"] > 0
    log = "".join(p.read_text() for p in tmp_path.rglob("aiperf.log"))
    about_server = [line for line in log.splitlines() if ("WARNING" in line or "ERROR" in line) and "GPU Telemetry" not in line]
    assert not about_server, about_server

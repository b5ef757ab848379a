"""A server that only has the page and figures made up for it: for what no small model can show (61 layers of 256
experts, a restart, an API key, reasoning apart)."""
import http.server
import json
import random
import threading
import time

from server import ROOT

PAGE = (ROOT / "src/serve/page/index.html").read_bytes()
BOUNDS = [.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5]


class FakeServer:
    def __init__(self, num_layers=61, num_experts=256, api_key=None, port=0, pause=0, num_ranks=1,
                 moves=None):
        self.num_layers, self.num_experts, self.api_key = num_layers, num_experts, api_key
        self.num_ranks, self.moves = num_ranks, moves
        self.pause = pause  # seconds before each piece of an answer
        self.rng, self.began = random.Random(1), time.time()
        self.popularity = [[self.rng.paretovariate(3) for _ in range(num_experts)] for _ in range(num_layers)]
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                fake.get(self)

            def do_POST(self):
                fake.post(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.http.daemon_threads = True
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def reply(self, handler, status, body, kind="application/json"):
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        # One request a connection, so that a server that has gone is gone.
        handler.send_header("Connection", "close")
        handler.close_connection = True
        handler.end_headers()
        handler.wfile.write(body)

    def allowed(self, handler):
        if not self.api_key or handler.headers.get("Authorization") == f"Bearer {self.api_key}":
            return True
        self.reply(handler, 401, b'{"error": {"message": "an API key is missing"}}')
        return False

    def get(self, handler):
        path, _, query = handler.path.partition("?")
        if path == "/":
            self.reply(handler, 200, PAGE, "text/html; charset=utf-8")
        elif path != "/moebius/stats":
            self.reply(handler, 404, b"{}")
        elif self.allowed(handler):
            self.reply(handler, 200, json.dumps(self.stats("experts=0" not in query)).encode())

    def histogram(self, middle, count):
        weights = [2.0 ** -abs(i - middle) for i in range(len(BOUNDS) + 1)]
        counts = [int(count * weight / sum(weights)) for weight in weights]
        return {"bounds": BOUNDS, "counts": counts, "sum": 1.0, "count": sum(counts), "p50": 0.01}

    def stats(self, with_experts):
        uptime = time.time() - self.began
        stats = {
            "server": {"version": "0", "model": "fake", "start_id": str(self.began), "uptime": uptime},
            "health": {"healthy": True, "reason": ""},
            "gauges": {"running": 200, "waiting": 12, "kv_blocks": 1000, "kv_blocks_used": 400, "kv_blocks_cached": 300},
            "counters": {"output_tokens": int(5000 * uptime), "prompt_tokens": int(20000 * uptime),
                         "cached_tokens": int(8000 * uptime)},
            "latency": {"ttft": self.histogram(7, 50 * uptime), "itl": self.histogram(4, 5000 * uptime),
                        "tpot": self.histogram(4, 50 * uptime), "e2e": self.histogram(10, 50 * uptime)}}
        stats["ranks"] = [self.rank(rank, uptime) for rank in range(self.num_ranks)]
        stats["balance"] = {"num_ranks": self.num_ranks, "window_seconds": 60,
                            "epoch": 3, "statistics": True, "locality": {"rank": 0.25, "copies": 0.1, "node": 1}, "moves": self.moves,
                            "balancedness": [0.5 + 0.4 * (layer % 2) for layer in range(self.num_layers)],
                            "imbalance": [1.2 + 0.4 * (layer % 2) for layer in range(self.num_layers)],
                            "imbalance_in_order": [2.0] * self.num_layers,
                            "starved": [layer % 3 for layer in range(self.num_layers)],
                            "dominant": [int(layer == 0) for layer in range(self.num_layers)],
                            "entropy": [0.75 + 0.04 * layer for layer in range(self.num_layers)],
                            "collapsed": [layer == 0 for layer in range(self.num_layers)]}
        if with_experts:
            table = [[int(1000 * weight) for weight in layer] for layer in self.popularity]
            stats["experts"] = {"num_layers": self.num_layers, "num_experts": self.num_experts, "window_seconds": 60,
                                "window": table, "since_start": [[10 * count for count in layer] for layer in table]}
        return stats

    def rank(self, rank, uptime):
        """The last one is busy while the others wait for it."""
        parts = {"attention": 0.3, "dispatch": 0.05, "experts": 0.2, "combine": 0.05, "wait": 0.3, "head": 0.05,
                 "sampling": 0.02, "other": 0.03}
        if rank == self.num_ranks - 1:
            parts.update(experts=0.5, wait=0)
        steps = int(100 * uptime)
        return {"rank": rank, "dp": rank, "tp": 0, "pp": 0, "steps": steps, "zero_token_steps": steps // 4,
                "tokens": 8 * steps, "expert_tokens": (rank + 1) * 40 * steps, "dispatch_bytes": 10000 * steps,
                "combine_bytes": 9000 * steps, "latency_steps": steps, "throughput_steps": 0, "last_step": steps - 1,
                "seconds": uptime, "parts": {name: share * uptime for name, share in parts.items()}}

    def post(self, handler):
        handler.rfile.read(int(handler.headers["Content-Length"]))
        if not self.allowed(handler):
            return
        deltas = [{"role": "assistant", "content": ""}, {"reasoning": "Let me "}, {"reasoning": "think."},
                  {"content": "It is "}, {"content": "<b>5</b>."}]
        chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        chunks.append({"choices": [], "usage": {"completion_tokens": 6}})
        pieces = [": a comment\n\n", *(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), "data: [DONE]\n\n"]
        if self.pause:
            self.drip(handler, pieces)
        else:
            self.reply(handler, 200, "".join(pieces).encode(), "text/event-stream")

    def drip(self, handler, pieces):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.close_connection = True
        handler.end_headers()
        try:
            for piece in pieces:
                handler.wfile.write(piece.encode())
                handler.wfile.flush()
                time.sleep(self.pause)
        except OSError:
            pass  # the reader has left

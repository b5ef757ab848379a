"""Many streams at once, and clients that vanish: nothing is mixed up, nothing leaks. Raw sockets, so that a client can
leave at any byte. CLIENT_KILL_SECONDS sets how long clients are killed (default 60)."""
import asyncio
import json
import os
import random
import time

from server import DEMO, Server

NUM_STREAMS = 500
WORDS = ["fox", "sheep", "moon", "river", "expert", "token", "rank", "slot"]


def request(path, body):
    data = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n").encode() + data


def question(i, stream, max_tokens=48):
    return {"messages": [{"role": "user", "content": f"Tell me a short story about a {WORDS[i % 8]} and a "
                                       f"{WORDS[i // 8 % 8]}."}],
            "temperature": 0, "max_tokens": max_tokens, "stream": stream}


async def ask(port, body):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/v1/chat/completions", body))
    raw = await asyncio.wait_for(reader.read(), 300)
    writer.close()
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), raw[:500]
    if b"chunked" not in head.lower():
        return json.loads(rest)["choices"][0]["message"]["content"]
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size, 16)
        body, rest = body + rest[:count], rest[count + 2:]
    events = body.decode().split("\n\n")
    assert events[-1] == "" and events[-2] == "data: [DONE]", events[-3:]
    text = ""
    for event in events[:-2]:
        assert event.startswith("data: ")
        for choice in json.loads(event[6:])["choices"]:
            text += choice["delta"].get("content") or ""
    return text


def test_500_streams_are_intact():
    async def run(port):
        expected = [await ask(port, question(i, False)) for i in range(64)]
        return expected, await asyncio.gather(*(ask(port, question(i, True)) for i in range(NUM_STREAMS)))

    with Server(DEMO) as server:
        expected, answers = asyncio.run(run(server.port))
        assert all(text == expected[i % 64] for i, text in enumerate(answers))
        assert server.metric("vllm:kv_cache_usage_perc") == 0
        assert server.stop() == 0


async def vanish(port, rng):
    """One client that leaves at a random moment: in its request, while waiting, in the answer, or never."""
    body = question(rng.randrange(64), rng.random() < 0.7, rng.choice([1, 20, 200, 900]))
    if rng.random() < 0.3:
        body["n"] = rng.randrange(1, 5)
        body["temperature"] = 1.0
    data = request("/v1/chat/completions", body)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if rng.random() < 0.1:
            data = data[:rng.randrange(len(data))]
        writer.write(data)
        patience = rng.expovariate(2.0)
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            if not await asyncio.wait_for(reader.read(rng.choice([1, 100, 4096])), left):
                break
    except (TimeoutError, asyncio.TimeoutError, ConnectionError):
        pass
    finally:
        if rng.random() < 0.5:
            writer.transport.abort()
        else:
            writer.close()


def test_killed_clients_leak_nothing():
    seconds = float(os.environ.get("CLIENT_KILL_SECONDS", "60"))

    async def clients(port, until, seed):
        rng = random.Random(seed)
        while time.monotonic() < until:
            await vanish(port, rng)

    async def run(port, duration):
        until = time.monotonic() + duration
        await asyncio.gather(*(clients(port, until, seed) for seed in range(64)))

    # Few KV blocks: all of them are touched before memory is measured.
    with Server(DEMO, "--num-gpu-blocks-override", "1024") as server:
        asyncio.run(run(server.port, seconds / 4))
        wait_idle(server)
        before = server.rss_mb()
        num_before = server.metric("vllm:request_success_total")
        asyncio.run(run(server.port, seconds))
        wait_idle(server)
        assert server.metric("vllm:request_success_total") > num_before
        assert server.rss_mb() < before * 1.05 + 8, (before, server.rss_mb())
        assert len(os.listdir(f"/proc/{server.process.pid}/fd")) < 64
        assert server.get("/health")[0] == 200
        assert server.stop() == 0


def wait_idle(server):
    deadline = time.monotonic() + 20
    while server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting") > 0:
        assert time.monotonic() < deadline, "requests still run"
        time.sleep(0.05)
    assert server.metric("vllm:kv_cache_usage_perc") == 0

"""openai-python against the server: chat, completions, streams, errors, timeouts, cancellation."""
import asyncio
import json
import subprocess
import time
import warnings

import openai
import pytest

from server import BINARY, DEMO, Server

QUESTION = [{"role": "user", "content": "What is 2 + 3?"}]


@pytest.fixture
def client(server):
    warnings.simplefilter("error")  # a client's warning is a failure
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


@pytest.fixture
def model(client):
    return client.models.list().data[0].id


def test_models(client, model):
    card = client.models.retrieve(model)
    assert card.object == "model" and card.max_model_len > 0


def test_chat(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=40)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant" and "5" in choice.message.content
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert answer._request_id


def test_chat_stream_equals_whole(client, model):
    whole = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=40)
    chunks = list(client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=40, stream=True,
        stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_stream_equals_moebius_run(client, model):
    run = subprocess.run([BINARY, "run", DEMO, "-p", "Who are you?", "--temperature", "0", "--max-tokens", "60"],
                         capture_output=True, text=True, check=True)
    stream = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Who are you?"}], temperature=0, max_tokens=60, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in stream).strip() == run.stdout.strip()


def test_stream_helper(client, model):
    with client.chat.completions.stream(model=model, messages=QUESTION, temperature=0, max_tokens=40) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.delta" in kinds and "5" in final.choices[0].message.content


def test_completion(client, model):
    answer = client.completions.create(model=model, prompt=["One,", "Two,"], n=2, max_tokens=5, temperature=0.7, seed=3)
    assert answer.object == "text_completion"
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    again = client.completions.create(model=model, prompt=["One,", "Two,"], n=2, max_tokens=5, temperature=0.7, seed=3)
    assert [c.text for c in answer.choices] == [c.text for c in again.choices]


def test_completion_token_ids(client, model, server):
    ids = json.loads(post(server, "/tokenize", {"prompt": "Hello there"}))["tokens"]
    by_ids = client.completions.create(model=model, prompt=ids, max_tokens=8, temperature=0)
    by_text = client.completions.create(model=model, prompt="Hello there", max_tokens=8, temperature=0)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert json.loads(post(server, "/detokenize", {"tokens": ids}))["prompt"].endswith("Hello there")


def test_completion_echo_logprobs(client, model):
    answer = client.completions.create(
        model=model, prompt="Hello there", echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234)
    logprobs = answer.choices[0].logprobs
    count = answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset) == count
    assert logprobs.token_logprobs[0] is None and all(v <= 0 for v in logprobs.token_logprobs[1:])
    assert all(token in top for token, top in list(zip(logprobs.tokens, logprobs.top_logprobs))[1:])
    assert answer.choices[0].text.startswith("Hello there")


def test_chat_logprobs(client, model):
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, temperature=0, max_tokens=40, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert all(len(entry.top_logprobs) == 3 for entry in content)
    assert all(entry.top_logprobs[0].token == entry.token for entry in content)  # greedy
    text = b"".join(bytes(entry.bytes) for entry in content).decode()
    assert text.startswith(answer.choices[0].message.content)


def test_stop_and_bias(client, model):
    free = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=40)
    text = free.choices[0].message.content
    cut = client.chat.completions.create(model=model, messages=QUESTION, temperature=0, max_tokens=40, stop=[text[3:5]])
    assert cut.choices[0].message.content == text[:text.index(text[3:5])]
    assert cut.choices[0].finish_reason == "stop"
    first = client.completions.create(model=model, prompt="Hello", max_tokens=1, temperature=0, logprobs=0,
                                      extra_body={"return_token_ids": True})
    token = first.choices[0].token_ids[0]
    banned = client.completions.create(model=model, prompt="Hello", max_tokens=1, temperature=0,
                                       logit_bias={str(token): -100}, extra_body={"return_token_ids": True})
    assert banned.choices[0].token_ids[0] != token


@pytest.mark.parametrize("fields, param", [
    ({"temperature": -1}, "temperature"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}, "tools"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"max_tokens": 10**7}, "max_tokens"),
    ({"messages": "Hello"}, "messages"),
])
def test_bad_requests(client, model, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": model, "messages": QUESTION, **fields})
    assert caught.value.body["param"] == param
    assert caught.value.body["type"] == "BadRequestError"


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nobody", messages=QUESTION)


def test_unknown_fields_are_ignored(client, model):
    client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2, extra_body={"no_such_field": [1]},
                                   user="me", metadata={"a": "b"}, store=False)


def test_api_key():
    with Server(DEMO, "--api-key", "secret") as server:
        assert server.get("/health")[0] == 200 and server.get("/metrics")[0] == 200
        assert server.get("/v1/models")[0] == 401 and server.get("/load")[0] == 401
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=server.url + "/v1", api_key="wrong").models.list()
        assert openai.OpenAI(base_url=server.url + "/v1", api_key="secret").models.list().data


def wait_idle(server):
    deadline = time.monotonic() + 10
    while server.metric("vllm:num_requests_running") + server.metric("vllm:num_requests_waiting") > 0:
        assert time.monotonic() < deadline, "requests still run"
        time.sleep(0.02)
    assert server.metric("vllm:kv_cache_usage_perc") == 0


def test_timeout_cancels(client, model, server):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).completions.create(
            model=model, prompt="Hello", max_tokens=2000, extra_body={"ignore_eos": True})
    wait_idle(server)


def test_cancelled_stream(client, model, server):
    before = server.metric("vllm:request_success_total", 'finished_reason="abort"')
    stream = client.completions.create(model=model, prompt="Hello", max_tokens=2000, stream=True,
                                       extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    wait_idle(server)
    assert server.metric("vllm:request_success_total", 'finished_reason="abort"') > before


def test_async_many(server, model):
    async def ask(client, i):
        stream = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": f"What is {i % 10} + 3?"}], temperature=0,
            max_tokens=40, stream=True)
        return "".join([c.choices[0].delta.content or "" async for c in stream])

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none") as client:
            return await asyncio.gather(*(ask(client, i) for i in range(50)))

    answers = asyncio.run(all_of_them())
    assert answers[:10] * 5 == answers


def post(server, path, body):
    import urllib.request
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()

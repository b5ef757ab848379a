"""Load on a server while a test looks on: threads that ask one question after another until they are told to stop."""
import itertools
import json
import threading
import urllib.request

PROMPTS = ["What is Moebius?", "How does expert parallelism work?", "What is 47 * 36?",
           "Tell me a short story about a fox who meets a lonely shepherd.",
           "Write a Python function that checks whether a number is prime.",
           "Write a five-character Chinese poem about the moon.", "What is a slot?", "What is 12 + 30?"]


class Load:
    """`with Load(server.url, num_clients=8): ...`; `errors` holds what went wrong."""

    def __init__(self, url, num_clients=8, pause=0.0):
        self.url, self.pause = url, pause
        self.errors, self.num_answers = [], 0
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(i,), daemon=True) for i in range(num_clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def client(self, first):
        for i in itertools.count(first):
            if self.stopping.wait(self.pause * (i % 4)):
                return
            body = {"messages": [{"role": "user", "content": PROMPTS[i % len(PROMPTS)]}],
                    "temperature": 0.7, "max_tokens": 30 + 40 * (i % 5), "stream": i % 3 != 0}
            request = urllib.request.Request(self.url + "/v1/chat/completions", json.dumps(body).encode(),
                                             {"Content-Type": "application/json"})
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    answer.read()
                self.num_answers += 1
            except OSError as error:
                self.errors.append(error)
                self.stopping.wait(0.2)

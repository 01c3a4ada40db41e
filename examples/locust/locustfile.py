"""A load test of the echo server: users who connect, and go on asking.

geventws echo &
locust -f examples/locust/locustfile.py --headless --host ws://127.0.0.1:8888 -u 1000 -r 100 -t 60s
"""

from __future__ import annotations

from locust import between, task

from geventws.locust import WebSocketUser


class Talker(WebSocketUser):
    wait_time = between(0.5, 1.5)

    def on_start(self) -> None:
        self.ws = self.connect("/talk")

    @task(10)
    def ask(self) -> None:
        answer = self.ask_for(self.ws, "How are you?", name="question")
        assert answer == "How are you?"

    @task
    def burst(self) -> None:
        # One request for the report, however many messages it takes.
        with self.measure("WSBurst", "ten at once") as facts:
            for number in range(10):
                self.ws.send(str(number))
            answers = [self.ws.receive(timeout=10) for _ in range(10)]
            facts["response_length"] = sum(map(len, answers))

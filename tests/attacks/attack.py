"""What an attack is, what it found, and the bars that it is held to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from target import MIB, Target

__all__ = ["ATTACKS", "Attack", "Outcome", "attack"]

#: Most that the resident set may grow, in bytes.
MEMORY = 4 * MIB
#: Most CPU seconds for each 10 MiB that were sent, and what any few bytes may cost.
CPU_FOR_10_MIB = 1.0
CPU_ANYHOW = 0.5


@dataclasses.dataclass(slots=True)
class Outcome:
    """What an attack has come to.

    Attributes:
        answer: how the server has answered, for the table.
        wrong: what is not as it must be, besides costs.
        sent: bytes.
        memory, cpu: what it has cost the server.
        p99, calm: of the well-behaved client beside it, in ms, and without the attack.
        cut: how often that client was cut.
    """

    answer: str
    wrong: list[str] = dataclasses.field(default_factory=list)
    sent: int = 0
    memory: int = 0
    cpu: float = 0.0
    p99: float = 0.0
    calm: float = 0.0
    cut: int = 0


@dataclasses.dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        name: T-..., and what it is.
        what: one line for the table.
        run: gets the target.
        memory: bytes that it may cost; or a function of the target.
        cpu: seconds that it may cost; None: by the bytes that were sent.
        witness: how long a well-behaved client waits is held to a bar.
        needs: "deflate", "broadcast", "tls" or "".
    """

    name: str
    what: str
    run: Callable[[Target], Outcome]
    memory: int | Callable[[Target], int] = MEMORY
    cpu: float | None = None
    witness: bool = True
    needs: str = ""

    def allowed_memory(self, target: Target) -> int:
        """Bytes."""
        return self.memory(target) if callable(self.memory) else self.memory

    def allowed_cpu(self, outcome: Outcome) -> float:
        """Seconds."""
        if self.cpu is not None:
            return self.cpu
        return max(CPU_ANYHOW, CPU_FOR_10_MIB * outcome.sent / (10 * MIB))

    def judge(self, target: Target, outcome: Outcome) -> list[str]:
        """All bars that the server is not below."""
        found = [*outcome.wrong]
        memory, cpu = self.allowed_memory(target), self.allowed_cpu(outcome)
        if outcome.memory > memory:
            found.append(f"{outcome.memory / MIB:.1f} MiB of memory, {memory / MIB:.1f} allowed")
        if outcome.cpu > cpu:
            found.append(f"{outcome.cpu:.2f} s of CPU, {cpu:.2f} allowed")
        if outcome.cut:
            found.append(f"the well-behaved client was cut {outcome.cut} times")
        if self.witness and outcome.p99 > allowed_p99(outcome.calm):
            found.append(
                f"the well-behaved client waited {outcome.p99:.1f} ms (p99), {outcome.calm:.1f} without"
            )
        return found


def allowed_p99(calm: float) -> float:
    """Milliseconds for one client beside one attack: three times, or what a busy machine does anyway."""
    return max(3 * calm, 50.0)


#: By name.
ATTACKS: dict[str, Attack] = {}


def attack(name: str, what: str, **bars: Any) -> Callable[[Callable[[Target], Outcome]], Attack]:
    """Make an attack of a function."""

    def register(run: Callable[[Target], Outcome]) -> Attack:
        ATTACKS[name] = Attack(name, what, run, **bars)
        return ATTACKS[name]

    return register

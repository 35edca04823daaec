"""Sums and differences of two-digit numbers, with the column method as the thought."""

from random import Random

from ..task import Task, ask, until

SUM = (
    "What is {a} + {b}?", "{a}+{b}", "{a} + {b} =", "{a} + {b}", "Calculate {a} + {b}.", "What is {a} plus {b}?",
    "Add {a} and {b}.", "What is the sum of {a} and {b}?", "How much is {a} + {b}?", "What's {a}+{b}?",
)  # fmt: skip
DIFFERENCE = (
    "What is {a} - {b}?", "{a}-{b}", "{a} - {b} =", "{a} - {b}", "Calculate {a} - {b}.", "What is {a} minus {b}?",
    "What is the difference of {a} and {b}?", "How much is {a} - {b}?", "What's {a}-{b}?",
)  # fmt: skip


def add_columns(a: int, b: int) -> str:
    """`7 + 5 = 12`, then the tens with the carry."""
    ones = a % 10 + b % 10
    lines = [f"{a % 10} + {b % 10} = {ones}"]
    carry = " + 1" if ones > 9 else ""
    lines.append(f"{a // 10} + {b // 10}{carry} = {a // 10 + b // 10 + ones // 10}")
    return "\n".join(lines)


def subtract_columns(a: int, b: int) -> str:
    """Columns of a - b; a smaller than b turns the numbers round first."""
    if a < b:
        return f"{a} < {b}\n{subtract_columns(b, a)}"
    borrow = a % 10 < b % 10
    top = a % 10 + 10 * borrow
    lines = [f"{top} - {b % 10} = {top - b % 10}"]
    lines.append(f"{a // 10} - {b // 10}{' - 1' if borrow else ''} = {a // 10 - b // 10 - borrow}")
    return "\n".join(lines)


def arithmetic(rng: Random, held_out: bool = False) -> Task:
    def draw(rng: Random) -> tuple[str, Task]:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        if rng.random() < 0.5:
            question = rng.choice(SUM).format(a=a, b=b)
            return f"{a}+{b}", ask("arithmetic", question, str(a + b), add_columns(a, b))
        if a < b and rng.random() < 0.7:
            a, b = b, a
        question = rng.choice(DIFFERENCE).format(a=a, b=b)
        return f"{a}-{b}", ask("arithmetic", question, str(a - b), subtract_columns(a, b))

    return until(rng, draw, held_out)

"""One line per check, and the count that tests/run.sh adds up."""

import traceback
from collections.abc import Callable

passed = failed = 0


def check(name: str, test: Callable[[], object]) -> None:
    """Runs it; what it raises is the problem, what it returns is worth telling."""
    global passed, failed
    try:
        told = test()
    except Exception as problem:
        failed += 1
        print(f"FAIL {name}", flush=True)
        print(problem if isinstance(problem, AssertionError) else traceback.format_exc(), flush=True)
    else:
        passed += 1
        print(f"ok   {name}{f': {told}' if told else ''}", flush=True)


def finish() -> int:
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0

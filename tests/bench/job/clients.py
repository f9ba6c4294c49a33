"""The job: fetch N items with W threads. `clients.py CLIENT BASE_URL ITEMS WORKERS TIMEOUT`.

Each client repeats as the documentation of its library shows, with six attempts in all. `naive` is
httpx without a repetition, which is also what runs behind forbear: only its base URL is another.
One line for each item as it ends: `good` or what became of it, and seconds since the start.
"""

import sys
import threading
import time

import httpx
import tenacity
import urllib3

ATTEMPTS = 6
# The random exponential wait is what tenacity's documentation has for a resource that is shared.
EXPONENTIAL = tenacity.wait_random_exponential(multiplier=1, min=1, max=60)


def naive(base: str, workers: int, timeout: float):
    """Takes the first answer."""
    client = httpx.Client(base_url=base, timeout=timeout)
    return lambda path: client.get(path).raise_for_status()


def with_tenacity(wait):
    """The naive client, repeated after a failure that can pass."""

    def passes(error: BaseException) -> bool:
        if isinstance(error, httpx.HTTPStatusError):
            return error.response.status_code in (429, 500, 502, 503, 504)
        return isinstance(error, httpx.TransportError)

    repeated = tenacity.retry(
        retry=tenacity.retry_if_exception(passes),
        wait=wait,
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        reraise=True,
    )
    return lambda base, workers, timeout: repeated(naive(base, workers, timeout))


def retry_after(state: tenacity.RetryCallState) -> float:
    """The wait that the API named, as in the example of `wait_exception`; else the usual one."""
    error = state.outcome.exception()
    named = error.response.headers.get("retry-after") if hasattr(error, "response") else None
    return float(named) if named else EXPONENTIAL(state)


def with_urllib3(base: str, workers: int, timeout: float):
    """urllib3's own Retry, which requests uses, too."""
    retries = urllib3.Retry(
        total=ATTEMPTS - 1,
        status_forcelist=[429, 503],
        backoff_factor=1,
        respect_retry_after_header=True,
    )
    pool = urllib3.PoolManager(maxsize=workers, retries=retries, timeout=timeout)

    def get(path: str) -> None:
        status = pool.request("GET", base + path).status
        if status != 200:
            raise RuntimeError(f"status {status}")

    return get


CLIENTS = {
    "naive": naive,
    "tenacity": with_tenacity(EXPONENTIAL),
    "tenacity-hint": with_tenacity(retry_after),
    "urllib3": with_urllib3,
    "forbear": naive,
}


def main(name: str, base: str, items: str, workers: str, timeout: str) -> None:
    get = CLIENTS[name](base, int(workers), float(timeout))
    numbers = iter(range(int(items)))
    lock = threading.Lock()
    # So that starting threads takes none of the measured time.
    begin = threading.Barrier(int(workers) + 1)

    def work() -> None:
        begin.wait()
        while True:
            with lock:
                item = next(numbers, None)
            if item is None:
                return
            try:
                get(f"/items/{item}")
                end = "good"
            except Exception as error:  # Whatever it is, the item is lost.
                end = type(error).__name__
            with lock:
                print(end, time.monotonic() - started, flush=True)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(int(workers))]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    begin.wait()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])

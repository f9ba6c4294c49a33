"""The built program, for tests that need a real forbear: started, found by its printed addresses, and ended."""

import re
import subprocess
import threading
import urllib.request
from collections import Counter
from pathlib import Path


class Forbear:
    """`forbear run` with the configuration `text`, in `folder`."""

    def __init__(self, binary: Path, folder: Path, text: str) -> None:
        (folder / "config.toml").write_text(text)
        self.log = open(folder / "forbear.log", "wb")
        self.process = subprocess.Popen(
            [binary, "run", "-c", folder / "config.toml"],
            cwd=folder, stdout=subprocess.PIPE, stderr=self.log, text=True,
        )
        listeners = {}
        for line in iter(self.process.stdout.readline, "ready\n"):
            if not line:
                raise SystemExit(f"forbear did not start:\n{(folder / 'forbear.log').read_text()}")
            name, _, address = line.strip().rpartition(" ")
            listeners[name] = address
        # The log comes the same way, and must not fill the pipe.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.proxy = listeners["proxy"]
        self.admin = listeners["admin"]

    def counted(self, metric: str, upstream: str) -> dict[str, int]:
        """A counter of this upstream by status code, without those that are 0."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        by_code: Counter[str] = Counter()
        for labels, value in re.findall(rf"^{metric}{{(.*)}} (\S+)$", text, re.MULTILINE):
            if f'upstream="{upstream}"' in labels:
                by_code[re.search(r'code="(\w+)"', labels)[1]] += int(float(value))
        return dict(+by_code)

    def close(self) -> int:
        """Ends it in good order; its exit code."""
        self.process.terminate()
        code = self.process.wait(30)
        self.log.close()
        return code

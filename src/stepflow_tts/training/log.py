"""What a run tells while it goes on: a line for the reader, and a CSV."""

import logging
import time
from collections import defaultdict
from pathlib import Path

from stepflow_tts.training.processes import Processes

logger = logging.getLogger(__name__)


class Log:
    """Means of what was logged since the last line, to the logger and to a CSV (step, name, value)."""

    def __init__(self, path: Path, step: int, processes: Processes) -> None:
        """Continue the CSV of a run at `step`; rows of updates that were lost go."""
        self.path, self.processes = path, processes
        self.values: dict[str, list[float]] = defaultdict(list)
        self.since, self.since_step = time.monotonic(), step
        if not processes.is_main:
            return
        kept = ["step,name,value\n"]
        if path.exists():
            rows = path.read_text().splitlines(keepends=True)[1:]
            kept += [r for r in rows if r.endswith("\n") and int(r.split(",", 1)[0]) <= step]
        path.write_text("".join(kept))

    def add(self, logs: dict[str, float]) -> None:
        """Note some values."""
        for name, value in logs.items():
            self.values[name].append(value)

    def write(self, step: int, num_updates: int) -> None:
        """Tell the means of what the processes noted; all of them call it at the same steps."""
        values: dict[str, list[float]] = defaultdict(list)
        for own in self.processes.gather(dict(self.values)):
            for name, numbers in own.items():
                values[name] += numbers
        self.values.clear()
        if not self.processes.is_main:
            return
        means = {name: sum(v) / len(v) for name, v in values.items()}
        seconds = (time.monotonic() - self.since) / max(1, step - self.since_step)
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(f"{step},{name},{value:.6g}\n" for name, value in means.items())
        shown = "  ".join(f"{name} {value:.4g}" for name, value in means.items())
        logger.info("%d/%d  %s  %.2f s/update", step, num_updates, shown, seconds)
        self.since, self.since_step = time.monotonic(), step

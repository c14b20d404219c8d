"""What a person reads while the DAG runs: a line per finished job, progress, time left. Snakemake's own log keeps all the rest."""

import time
from collections import Counter, defaultdict
from pathlib import Path

LAST_LINES = 5  # of the log of a failed job
CHATTER = (  # what Snakemake says at every start and end, whatever runs
    "Assuming unrestricted shared filesystem usage.",
    "Building DAG of jobs...",
    "Complete log(s):",
    "Conda environments: ignored",
    "Elapsed time:",
    "Exiting because a job execution failed.",
    "Group jobs:",
    "Reasons:",
    "Select jobs to execute...",
    "Shutting down, this might take some time.",
    "Storing output in storage.",
    "Using profile ",
    "Using shell:",
    "host:",
)
CALL_FAILED = "\nCalledProcessError in file"
DRY_RUN = "This was a dry-run"
COMPLETE = "With -p: each job with its files and its command."


def title(rule: str, wildcards: dict[str, str]) -> str:
    """A job in words: `train flowgrpo_sd35m seed 0`."""
    values = [f"seed {value}" if name == "seed" else str(value) for name, value in wildcards.items()]
    return " ".join([rule.replace("_", " "), *values])


def duration(seconds: float) -> str:
    """Seconds in the two largest units: `34 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Console:
    """Turns Snakemake's events into lines for people; knows a job by its id from its announcement to its end."""

    def __init__(self) -> None:
        self.jobs: dict[int, dict] = {}  # id -> title, rule, log, start
        self.remaining: Counter[str] = Counter()  # rule -> jobs to come, those that run included
        self.seconds: dict[str, list[float]] = defaultdict(list)  # rule -> what its finished jobs took
        self.done = 0
        self.total = 0
        self.begun = 0.0

    def lines(self, event: str | None, fields: dict, message: str, now: float | None = None) -> list[str]:
        """What to print at an event (a Snakemake `LogEvent`, None for plain text); `now` in seconds."""
        now = time.monotonic() if now is None else now
        if event == "run_info":
            return self._plan(fields["stats"], now)
        if event == "job_info":
            self.jobs[fields["jobid"]] = {
                "title": title(fields["rule_name"], fields["wildcards"] or {}),
                "rule": fields["rule_name"],
                "log": [str(path) for path in fields["log"] or []],
                "start": now,
            }
            return []
        if event == "job_finished":
            return self._finished(fields["job_id"], now)
        if event == "job_error":
            return self._failed(fields["jobid"], now)
        if event == "error" and CALL_FAILED in message:  # the line of the failed job says what and why
            return []
        if event in (None, "error") and not message.startswith(CHATTER):
            return [f"{message} {COMPLETE}"] if message.startswith(DRY_RUN) else [message]
        return []

    def _plan(self, stats: dict[str, int], now: float) -> list[str]:
        if self.total:  # a dry run says it twice
            return []
        counts = {rule: count for rule, count in stats.items() if rule != "total"}
        self.remaining, self.total, self.begun = Counter(counts), sum(counts.values()), now
        width = max((len(rule) for rule in counts), default=0)
        jobs = [f"  {count:5}  {rule.replace('_', ' '):{width}}".rstrip() for rule, count in counts.items()]
        return [f"{self.total} jobs:", *jobs]

    def _finished(self, number: int, now: float) -> list[str]:
        job = self.jobs.get(number)
        if job is None:
            return []
        took = now - job["start"]
        self.seconds[job["rule"]].append(took)
        self.remaining[job["rule"]] -= 1
        self.done += 1
        if job["rule"] == "all":  # the target that waits for every other job
            return [f"{self.done} of {self.total} jobs done in {duration(now - self.begun)}"]
        left = self.seconds_left(now)
        ends = f", about {duration(left)} left" if left is not None else ""
        return [f"{job['title']}: {duration(took)}  ({self.done} of {self.total} jobs{ends})"]

    def _failed(self, number: int, now: float) -> list[str]:
        job = self.jobs.get(number)
        if job is None or job.get("failed"):  # Snakemake repeats every error at its end
            return []
        job["failed"] = True
        lines = [f"{job['title']}: failed after {duration(now - job['start'])}"]
        for path in filter(lambda path: Path(path).is_file(), job["log"]):
            tail = Path(path).read_text(errors="replace").splitlines()[-LAST_LINES:]
            lines += [f"  {path} ends with", *(f"    {line}" for line in tail)]
        return lines

    def seconds_left(self, now: float) -> float | None:
        """An estimate: what a rule's finished jobs took on average, a mean over rules where none has finished, and as many jobs at
        once as so far. None before three jobs are done and after the last."""
        work = [seconds for taken in self.seconds.values() for seconds in taken]
        if len(work) < 3 or self.done == self.total or now <= self.begun:
            return None
        means = {rule: sum(taken) / len(taken) for rule, taken in self.seconds.items()}
        typical = sum(means.values()) / len(means)
        ahead = sum(count * means.get(rule, typical) for rule, count in self.remaining.items())
        at_once = max(1.0, sum(work) / (now - self.begun))
        return ahead / at_once

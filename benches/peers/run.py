"""Our benches and the peers, in turn, on one card: a JSON file of all samples and a Markdown table of ratios.

    python3 benches/peers/run.py target/gpu-pack benches/results [--stages ops,models] [--rounds 2] [--filter REGEX]

The first argument is the folder of prebuilt benches (`benches/pack.sh`), the second where results go. With LEFT in the
environment (seconds), programs are stopped in time for a table of what they have said, ours after three fifths of it, so
that the peers have their turn.
"""
import argparse
import contextlib
import datetime
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
OURS = "flamant"
# What a result is held to: pattern of names, what is compared, and the goal; a geometric mean where several names fit.
GOALS = [
    ("batch-1 decode, IDEFICS-9B", r"IDEFICS-9B/decode1at", "read", 0.92),
    ("batch-1 decode, IDEFICS-9B", r"IDEFICS-9B/decode1at", "strong", 1.3),
    ("batch-1 decode, IDEFICS-9B", r"IDEFICS-9B/decode1at", "hf", 6.0),
    ("batch-1 decode, OpenFlamingo-3B, tokens/s", r"OpenFlamingo-3B/decode1at", "rate", 860.0),
    ("linear, 1-64 rows", r"linear/(1|2|4|8|16|64)x", "kernel", 1.08),
    ("linear, 512 rows and more, with epilogues", r"linear/(512|2056)x", "kernel", 1.12),
    ("vision attention", r"vision/", "kernel", 1.6),
    ("masked image attention, 32 shots", r"masked/1024to32x", "kernel", 10.0),
    ("decode attention, 16 x 512", r"causal/.*/decode16at", "read", 0.9),
    ("ViT-L with resampler, pictures/s", r"OpenFlamingo-9B/encode", "rate", 3900.0),
    ("ViT-H with resampler, pictures/s", r"IDEFICS-9B/encode", "rate", 1890.0),
    ("pictures encoded", r".*/encode", "strong", 1.25),
    ("pictures encoded", r".*/encode", "hf", 3.0),
    ("first token, 8 shots cold", r".*/first", "hf", 3.0),
]


# What the table takes, and the interpreter before us.
RESERVED_SECONDS = 5
# Programs that failed or were stopped.
UNDONE = []


def part(share, end):
    """When that share of the time until `end` is over."""
    now = time.monotonic()
    return now + share * (end - now)


def lines_of(command, environment=None, end=math.inf):
    """The lines of JSON that a command prints until then; all else goes through."""
    print("$", *command, file=sys.stderr, flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    stopped = []

    def stop():
        stopped.append(True)
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(max(0.0, end - time.monotonic()), stop) if end < math.inf else None
    if timer:
        timer.start()
    found = []
    try:
        for line in process.stdout:
            if line.startswith("{"):
                # The last line of a program that is stopped may be half a line.
                with contextlib.suppress(json.JSONDecodeError):
                    found.append(json.loads(line))
            else:
                print(line, end="", file=sys.stderr)
        code = process.wait()
    finally:
        if timer:
            timer.cancel()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    if stopped:
        print(f"STOPPED after {len(found)} lines: {' '.join(command)}", file=sys.stderr)
    elif code != 0:
        print(f"FAILED with {code}: {' '.join(command)}", file=sys.stderr)
    if stopped or code != 0:
        UNDONE.append(command[0] if len(command) < 2 else Path(command[1]).name)
    return found


class Results:
    def __init__(self, ceilings):
        self.ceilings, self.cases, self.seconds = ceilings, {}, {}

    def add(self, lines, of_ours):
        for line in lines:
            if of_ours:
                self.cases[line["name"]] = {key: line[key] for key in ("bytes", "flops", "units", "unit")}
            peer = OURS if of_ours else line["peer"]
            self.seconds.setdefault(line["name"], {}).setdefault(peer, []).append(line["seconds"])

    def median(self, name, peer):
        samples = self.seconds.get(name, {}).get(peer)
        return statistics.median(samples) if samples else None

    def best_kernel(self, name):
        """The fastest single operation of PyTorch."""
        peers = [peer for peer in self.seconds.get(name, {}) if peer not in (OURS, "strong", "hf")]
        return min(((self.median(name, peer), peer) for peer in peers), default=(None, None))

    def share(self, name, amount, ceiling):
        seconds, amount = self.median(name, OURS), self.cases[name][amount]
        return amount / seconds / self.ceilings[ceiling] if amount and self.ceilings.get(ceiling) else None

    def measure(self, name, against):
        ours = self.median(name, OURS)
        if against == "read":
            return self.share(name, "bytes", "read")
        if against == "rate":
            return self.cases[name]["units"] / ours
        theirs = self.best_kernel(name)[0] if against == "kernel" else self.median(name, against)
        return theirs / ours if theirs else None

    def goals(self):
        for what, pattern, against, goal in GOALS:
            found = [self.measure(name, against) for name in self.cases if re.match(pattern, name)]
            found = [value for value in found if value]
            if found:
                yield what, against, math.prod(found) ** (1 / len(found)), goal

    def spread(self):
        """How far two rounds of one thing lie apart, in the middle of all: differences below it are noise."""
        apart = [max(s) / min(s) - 1 for peers in self.seconds.values() for s in peers.values() if len(s) > 1]
        return statistics.median(apart) if apart else None


def markdown(results, card, date):
    def number(value, form="{:.2f}"):
        return "-" if value is None else form.format(value)

    rates = ", ".join(f"{name} {rate / 1e12:.3f} T/s" for name, rate in results.ceilings.items())
    spread = number(results.spread(), "{:.1%}")
    text = [f"# {card}, {date}", "", f"Ceilings measured in this run: {rates} (bytes; operations for `matrix`). Rounds differ by {spread}."]
    text += [f"Not finished: {', '.join(UNDONE)}."] if UNDONE else []
    text += ["", "## Goals", "", "| what | against | found | goal |", "|---|---|---|---|"]
    text += [f"| {what} | {against} | {found:.2f} | {goal} |" for what, against, found, goal in results.goals()]
    text += ["", "## Everything", "", "| name | us | of read | of matrix | best kernel | ratio | strong | hf |", "|---|---|---|---|---|---|---|---|"]
    for name in results.cases:
        text.append("| " + " | ".join([
            name,
            number(1e6 * results.median(name, OURS), "{:.1f}"),
            number(results.share(name, "bytes", "read"), "{:.0%}"),
            number(results.share(name, "flops", "matrix"), "{:.0%}"),
            results.best_kernel(name)[1] or "-",
            *(number(results.measure(name, against)) for against in ("kernel", "strong", "hf")),
        ]) + " |")
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pack", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stages", default="ops,models")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--filter", default=".", help="our benches to run, and the peers of these")
    parser.add_argument("--scratch", type=Path, help="for what is read again: ceilings are measured once for each")
    options = parser.parse_args()
    # Whoever stops us stops what we started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options.out.mkdir(parents=True, exist_ok=True)
    scratch = options.scratch or options.out
    end = time.monotonic() + float(os.environ.get("LEFT", "inf")) - RESERVED_SECONDS
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    date = datetime.date.today().isoformat()

    ceilings = scratch / "ceilings.json"
    if options.scratch is None or not ceilings.exists():
        lines_of([sys.executable, str(HERE / "ceilings.py"), str(ceilings)], end=part(0.3, end))
    rates = json.loads(ceilings.read_text()) if ceilings.exists() else {}
    environment = dict(os.environ, FLAMANT_REQUIRE_DEVICES="cuda")
    if rates:
        environment["CEILINGS"] = str(ceilings)
    results = Results(rates)
    stages = options.stages.split(",")
    base = options.out / f"{date}-{card.lower().replace(' ', '-')}-{'-'.join(stages)}"
    turns = [stage for _ in range(options.rounds) for stage in stages]
    whole = True
    for turn, stage in enumerate(turns):
        ends, done = part(1 / (len(turns) - turn), end), len(UNDONE)
        ours = lines_of([str(options.pack / f"bench-{stage}"), "--bench", options.filter], environment, part(0.6, ends))
        whole = whole and ours and len(UNDONE) == done
        results.add(ours, True)
        if stage == "ops":
            cases = scratch / "cases.jsonl"
            cases.write_text("".join(json.dumps(case) + "\n" for case in ours))
            peers = [["kernel.py", str(cases)]]
        else:
            models = sorted({case["name"].split("/")[0] for case in ours})
            peers = [["hf.py", *models], ["strong.py", *models]] if models else []
        for place, (script, *arguments) in enumerate(peers):
            ended = part(1 / (len(peers) - place), ends)
            results.add(lines_of([sys.executable, str(HERE / script), *arguments], end=ended), False)
        # Written as it grows: a run that is cut short leaves what it has.
        everything = {"card": card, "date": date, "ceilings": rates, "cases": results.cases, "seconds": results.seconds}
        Path(f"{base}.json").write_text(json.dumps(everything, indent=1))
        Path(f"{base}.md").write_text(markdown(results, card, date))
    print(markdown(results, card, date))
    sys.exit(0 if whole else 1)


if __name__ == "__main__":
    main()

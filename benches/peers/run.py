"""Our benches and the peers, in turn, on one card: a JSON file of all samples and a Markdown table of ratios.

    python3 benches/peers/run.py target/gpu-pack benches/results [--stages ops,models] [--rounds 2]

The first argument is the folder of prebuilt benches (`benches/pack.sh`), the second where results go.
"""
import argparse
import datetime
import json
import math
import os
import re
import statistics
import subprocess
import sys
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


def lines_of(command, environment=None):
    """The lines of JSON that a command prints; all else goes through."""
    print("$", *command, file=sys.stderr, flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    found = []
    for line in process.stdout:
        if line.startswith("{"):
            found.append(json.loads(line))
        else:
            print(line, end="", file=sys.stderr)
    if process.wait() != 0:
        print(f"FAILED with {process.returncode}: {' '.join(command)}", file=sys.stderr)
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
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    date = datetime.date.today().isoformat()

    ceilings = options.out / "ceilings.json"
    lines_of([sys.executable, str(HERE / "ceilings.py"), str(ceilings)])
    rates = json.loads(ceilings.read_text()) if ceilings.exists() else {}
    environment = dict(os.environ, FLAMANT_REQUIRE_DEVICES="cuda")
    if rates:
        environment["CEILINGS"] = str(ceilings)
    results = Results(rates)
    stages = options.stages.split(",")
    base = options.out / f"{date}-{card.lower().replace(' ', '-')}-{'-'.join(stages)}"
    for _ in range(options.rounds):
        for stage in stages:
            ours = lines_of([str(options.pack / f"bench-{stage}"), "--bench"], environment)
            results.add(ours, True)
            peers = ["strong.py"], ["hf.py"]
            if stage == "ops":
                cases = options.out / "cases.jsonl"
                cases.write_text("".join(json.dumps(case) + "\n" for case in ours))
                peers = (["kernel.py", str(cases)],)
            for script, *arguments in peers:
                results.add(lines_of([sys.executable, str(HERE / script), *arguments]), False)
            # Written as it grows: a run that is cut short leaves what it has.
            everything = {"card": card, "date": date, "ceilings": rates, "cases": results.cases, "seconds": results.seconds}
            Path(f"{base}.json").write_text(json.dumps(everything, indent=1))
            Path(f"{base}.md").write_text(markdown(results, card, date))
    print(markdown(results, card, date))


if __name__ == "__main__":
    main()

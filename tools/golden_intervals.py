"""Writes tests/data/metrics/intervals.json: intervals of shares by scipy and statsmodels, and of areas under the ROC curve
by a root that scipy finds. Usage: python tools/golden_intervals.py tests/data/metrics"""

import json
import math
import sys
from pathlib import Path

from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from statsmodels.stats.proportion import proportion_confint


def share(right, count):
    found = binomtest(right, count).proportion_ci(confidence_level=0.95, method="wilson")
    low, high = proportion_confint(right, count, alpha=0.05, method="wilson")
    assert abs(found.low - low) < 1e-12 and abs(found.high - high) < 1e-12
    return {"right": right, "count": count, "low": max(0.0, float(low)), "high": min(1.0, float(high))}


def area(found, m, n):
    """Newcombe 2006, method 5 (Statistics in Medicine 25, 559-573)."""
    z = norm.ppf(0.975)

    def excess(true):
        more = (m + n) / 2 - 1
        variance = true * (1 - true) * (1 + more * (1 - true) / (2 - true) + more * true / (1 + true)) / (m * n)
        return (found - true) ** 2 - z * z * variance

    low = 0.0 if found == 0 else brentq(excess, 1e-15, found - 1e-15 if found == 1 else found, xtol=1e-15)
    high = 1.0 if found == 1 else brentq(excess, found + 1e-15 if found == 0 else found, 1 - 1e-15, xtol=1e-15)
    return {"area": found, "positives": m, "negatives": n, "low": low, "high": high}


shares = [(0, 12), (12, 12), (6, 12), (1, 12), (11, 12), (0, 1), (1, 1), (3, 1000), (5000, 10000)]
areas = [(1.0, 6, 6), (0.0, 6, 6), (0.5, 6, 6), (0.75, 4, 8), (0.9, 50, 100), (1.0, 1, 1), (0.65, 500, 500)]
found = {"shares": [share(*case) for case in shares], "areas": [area(*case) for case in areas]}
assert math.isclose(found["shares"][0]["high"], 0.2424940, abs_tol=1e-6)
text = json.dumps(found, separators=(",", ":"))
(Path(sys.argv[1]) / "intervals.json").write_text(text + "\n")
print(f"intervals.json: {len(text)} bytes")

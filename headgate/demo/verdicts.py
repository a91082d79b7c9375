"""What the figures say, in words for people."""

from __future__ import annotations

from uns_topics.reports import Figure

FIGURE_NAMES = {"average_precision": "average precision", "roc_auc": "ROC AUC", "rmse": "RMSE"}


def better(metric: str) -> str:
    """Which way is up."""
    return "lower is better" if metric == "rmse" else "higher is better"


def verdict(difference: Figure | None, metric: str) -> str:
    """What the paired difference federated - local says; empty where there is none."""
    if difference is None:
        return ""
    if difference.low is None or difference.high is None or difference.undecided:
        return "undecided: too few rows" if metric == "rmse" else "undecided: too few positives"
    sign = -1 if metric == "rmse" else 1
    low, high = sorted((sign * difference.low, sign * difference.high))
    if low > 0:
        return "federation helps"
    if high < 0:
        return "local only is better"
    return "no clear difference"


def figure(shown: Figure) -> str:
    """One model's figure."""
    if shown.value is None:
        return "undecided"
    return f"{shown.value:.3f}" if abs(shown.value) < 10 else f"{shown.value:.1f}"


def interval(shown: Figure | None) -> str:
    """A difference with its 95 % interval."""
    if shown is None or shown.value is None or shown.low is None or shown.high is None:
        return "-"
    return f"{shown.value:+.2f} ({shown.low:+.2f} to {shown.high:+.2f})"

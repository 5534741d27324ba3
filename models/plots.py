"""Pictures of how a model does, as PNG. Needs the `train` extra."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve

Int8 = NDArray[np.int8]
Probabilities = Mapping[str, NDArray[Any]]

_BINS = np.linspace(0, 1, 51)


def plot_precision_recall(path: Path, labels: Int8, models: Probabilities) -> None:
    """Precision over recall of each model by its title, all on the same rows [n]."""
    figure = Figure(figsize=(6.4, 6.0), layout="constrained")
    axes = figure.add_subplot()
    for title, probabilities in models.items():
        precision, recall, _ = precision_recall_curve(labels, probabilities)
        axes.plot(recall, precision, label=f"{title}, AP {average_precision_score(labels, probabilities):.3f}")
    axes.axhline(labels.mean(), color="grey", linewidth=1, linestyle=":", label=f"by chance, AP {labels.mean():.3f}")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize="small")
    figure.savefig(path, dpi=120)


def plot_scores(path: Path, labels: Int8, models: Probabilities) -> None:
    """Histograms of the probabilities of fraud and of genuine rows [n], for each model; counts on a log scale."""
    figure = Figure(figsize=(5.2 * len(models), 4.0), layout="constrained")
    for axes, (title, probabilities) in zip(
        np.atleast_1d(figure.subplots(1, len(models), sharey=True)), models.items(), strict=True
    ):
        for label, name in enumerate(("genuine", "fraud")):
            axes.hist(probabilities[labels == label], _BINS, alpha=0.6, label=name)
        axes.set(title=title, xlabel="probability", ylabel="events", yscale="log")
        axes.legend()
    figure.savefig(path, dpi=120)

"""Tries what an environment for science is for: a table is written, read, solved, learned from and drawn.

Each step raises when it is not right; the last line of output is JSON with what each took, in seconds.
"""

import json
import platform
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg", force=True)
import numpy as np
import pandas as pd
import scipy.linalg
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression

seconds = {}


def step(name, work):
    """Run one step, say so, and note how long it took."""
    started = time.perf_counter()
    result = work()
    seconds[name] = round(time.perf_counter() - started, 2)
    print("ok", name, seconds[name], "s", flush=True)
    return result


def table(folder):
    """Two clouds of points, through a file and back."""
    random = np.random.default_rng(7)
    made = pd.DataFrame(random.normal(size=(200, 2)), columns=["x", "y"])
    made["kind"] = np.arange(200) % 2
    made.loc[made["kind"] == 1, "x"] += 5.0
    path = folder / "points.csv"
    made.to_csv(path, index=False)
    read = pd.read_csv(path)
    pd.testing.assert_frame_equal(made, read)
    return read


def solve():
    matrix, right = np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([1.0, 2.0])
    np.testing.assert_allclose(matrix @ scipy.linalg.solve(matrix, right), right)


def learn(points):
    return LogisticRegression().fit(points[["x", "y"]], points["kind"]).score(points[["x", "y"]], points["kind"])


def draw(points, folder):
    figure = Figure()
    figure.subplots().scatter(points["x"], points["y"], c=points["kind"])
    path = folder / "points.png"
    figure.savefig(path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n"), "the drawing is no PNG"


with tempfile.TemporaryDirectory(prefix="ailab-proof-") as place:
    found = step("table", lambda: table(Path(place)))
    step("solve", solve)
    accuracy = step("learn", lambda: learn(found))
    assert accuracy > 0.95, f"the model learned nothing: {accuracy}"
    step("draw", lambda: draw(found, Path(place)))
print(
    json.dumps(
        {
            "numpy": np.__version__,
            "python": platform.python_version(),
            "accuracy": round(accuracy, 3),
            "seconds": seconds,
        }
    )
)

"""Proves an environment for science: versions, and a product of matrices."""

import json
import platform

import numpy as np

product = np.array([[1.0, 2.0], [3.0, 4.0]]) @ np.array([[1.0, 1.0], [0.0, 1.0]])
print("NumPy", np.__version__)
print(product)
print(json.dumps({"tensorflow": None, "python": platform.python_version(), "gpus": [], "matmul": product.tolist()}))

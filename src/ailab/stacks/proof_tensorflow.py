"""Three steps that prove a TensorFlow environment: version, GPUs with memory growth set, a product of matrices."""

import json
import os
import platform

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf

gpus = tf.config.list_physical_devices("GPU")
for gpu in gpus:
    tf.config.experimental.set_memory_growth(gpu, True)
product = tf.matmul(tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([[1.0, 1.0], [0.0, 1.0]])).numpy()
print("TensorFlow", tf.__version__)
print("GPUs", [gpu.name for gpu in gpus])
print(product)
print(
    json.dumps(
        {
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
            "gpus": [gpu.name for gpu in gpus],
            "matmul": product.tolist(),
        }
    )
)

#!/usr/bin/env bash
# safetensors 0.8.0 with numpy 2.4.6: `safetensors.numpy.save` and `save_file` write the wrong numbers for an array that is
# not C-contiguous (a transpose, a slice with a step, Fortran order): the bytes as they lie in memory under the shape of the
# view. No error, no warning; the shape and the type come back right. 0.7.0 wrote the right numbers.
# Expected: what is loaded equals what was saved, as in 0.7.0.
# Seen: [[0, 3], [1, 4], [2, 5]] comes back as [[0, 1], [2, 3], [4, 5]].
# Here: we read safetensors through torch only; whoever writes features or adapters from numpy calls np.ascontiguousarray.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for version in 0.7.0 0.8.0; do
    uv venv --quiet "$work/$version"
    uv pip install --quiet --python "$work/$version/bin/python" "safetensors==$version" numpy==2.4.6
    "$work/$version/bin/python" - <<'PY' >>"$work/seen"
import numpy as np
from safetensors import numpy as tensors

saved = np.arange(6).reshape(2, 3).T
loaded = tensors.load(tensors.save({"x": saved}))["x"]
print(loaded.tolist())
PY
done
diff - "$work/seen" <<'SEEN' || { echo "safetensors.numpy treats strides in another way now"; exit 1; }
[[0, 3], [1, 4], [2, 5]]
[[0, 1], [2, 3], [4, 5]]
SEEN

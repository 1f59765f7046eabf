#!/usr/bin/env bash
# pydicom 3.0.2 with numpy 2.4.0: `apply_voi_lut` counts the places of a lookup table in the type of what the table holds. Of a
# table of 4,096 places in 256 levels (12 bits shown as 8, which the standard allows) only the first 256 are ever read, again
# and again, and the image is wrapped bands without a warning.
# Expected: the numbers 0, 255, 256, 2048 and 4095 through a table of `place // 16` are 0, 15, 16, 128 and 255.
# Seen: 0 15 0 0 15.
# Here: tables of DICOM files are looked up by data/images/dicom.py itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

uv venv --quiet "$work/env"
uv pip install --quiet --python "$work/env/bin/python" pydicom==3.0.2 numpy==2.4.0
cat >"$work/show.py" <<'PY'
import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels import apply_voi_lut

table = Dataset()
table.add_new("LUTDescriptor", "US", [4096, 0, 8])
table.add_new("LUTData", "US", [place // 16 for place in range(4096)])
image = Dataset()
image.VOILUTSequence = [table]
print(*apply_voi_lut(np.array([0, 255, 256, 2048, 4095], dtype=np.uint16), image))
PY
"$work/env/bin/python" "$work/show.py" >"$work/seen"
diff - "$work/seen" <<'SEEN' || { echo "pydicom reads the whole table now"; exit 1; }
0 15 0 0 15
SEEN

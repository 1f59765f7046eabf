#!/usr/bin/env bash
# torchmetrics 1.9.0: the Matthews correlation of predictions that are all alike is 0, but for two classes it is not.
#
# Four images, three of class 0, and all four predicted as class 0. The coefficient is 0/0 there, which scikit-learn
# counts as 0. MulticlassMatthewsCorrCoef(3) does, too; told of two classes, it gives .577 for the same predictions,
# as BinaryMatthewsCorrCoef does, and -.577 where all are predicted as class 1: the better the guess at the larger
# class, the higher a figure that is meant to be blind to it.
#
# Expected: 0 from all of them, as a constant prediction correlates with nothing.
# Seen: for the four images,
#   all 0: three classes 0.000, two classes 0.577, binary 0.577, scikit-learn 0.000
#   all 1: three classes 0.000, two classes -0.577, binary -0.577, scikit-learn 0.000
# Here: metrics/defined.py computes the value itself.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python 3.11 "$work/venv"
uv pip install --quiet --python "$work/venv/bin/python" torchmetrics==1.9.0 torch==2.9.1 scikit-learn==1.7.2

seen=$("$work/venv/bin/python" - <<'PY'
import torch
from sklearn.metrics import matthews_corrcoef
from torchmetrics.classification import BinaryMatthewsCorrCoef, MulticlassMatthewsCorrCoef

right = torch.tensor([0, 0, 0, 1])
for said in (0, 1):
    predicted = torch.full((4,), said)
    values = {
        "three classes": MulticlassMatthewsCorrCoef(3)(predicted, right),
        "two classes": MulticlassMatthewsCorrCoef(2)(predicted, right),
        "binary": BinaryMatthewsCorrCoef()(predicted, right),
        "scikit-learn": matthews_corrcoef(right, predicted),
    }
    print(f"all {said}:", ", ".join(f"{name} {float(value):.3f}" for name, value in values.items()))
PY
)
expected="all 0: three classes 0.000, two classes 0.577, binary 0.577, scikit-learn 0.000
all 1: three classes 0.000, two classes -0.577, binary -0.577, scikit-learn 0.000"
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: not what is stated above"; exit 1; }

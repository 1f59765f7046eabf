#!/usr/bin/env bash
# hatchling 1.27.0: an editable install copies what `force-include` maps into the package to site-packages/PACKAGE/, while the
# package itself is imported from the checkout. So the files are installed, importlib.resources does not find them, and the
# copies keep their old text when the source changes.
# Expected: either the files as the wheel has them, or nothing of them; a knowledgeable guess was nothing.
# Seen: installed yes, found by importlib.resources no, text after an edit still "old".
# Here: core/packaged.py looks beside the package in a checkout and inside it in a wheel.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/project/demo" "$work/project/extra"
touch "$work/project/demo/__init__.py"
echo old >"$work/project/extra/text.txt"
cat >"$work/project/pyproject.toml" <<'TOML'
[build-system]
requires = ["hatchling==1.27.0"]
build-backend = "hatchling.build"

[project]
name = "demo"
version = "1"

[tool.hatch.build.targets.wheel.force-include]
extra = "demo/extra"
TOML
uv venv --quiet "$work/env"
uv pip install --quiet --python "$work/env/bin/python" --editable "$work/project"
echo new >"$work/project/extra/text.txt"
(cd "$work" && env/bin/python - <<'PY') >"$work/seen"
import importlib.resources
import sysconfig
from pathlib import Path

copy = Path(sysconfig.get_paths()["purelib"], "demo/extra/text.txt")
print("installed", copy.is_file())
print("found", (importlib.resources.files("demo") / "extra/text.txt").is_file())
print("text", copy.read_text().strip())
PY
diff - "$work/seen" <<'SEEN' || { echo "hatchling treats forced files in another way now"; exit 1; }
installed True
found False
text old
SEEN

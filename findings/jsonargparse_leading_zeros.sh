#!/usr/bin/env bash
# jsonargparse 4.53.0 with pyyaml 6.0.4: an `int` or `float` option reads `010` as 10 when it is given on the command line,
# and as 8 (octal, as in YAML 1.1) when the same text stands in a file or in `--config '{x: 010}'`.
# Expected: one reading for both, whichever; a configuration is documented as another way to give the same options.
# Seen: 10, then 8.
# Here: numbers in our configurations have no leading zeros; ids that have them are strings in quotes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

uv venv --quiet "$work/env"
uv pip install --quiet --python "$work/env/bin/python" 'jsonargparse==4.53.0' pyyaml==6.0.4
echo 'x: 010' >"$work/file.yaml"
cat >"$work/show.py" <<'PY'
import sys

from jsonargparse import ArgumentParser

parser = ArgumentParser()
parser.add_argument("--x", type=int)
parser.add_argument("--config", action="config")
print(parser.parse_args(sys.argv[1:]).x)
PY
{
    "$work/env/bin/python" "$work/show.py" --x 010
    "$work/env/bin/python" "$work/show.py" --config "$work/file.yaml"
} >"$work/seen"
diff - "$work/seen" <<'SEEN' || { echo "jsonargparse reads leading zeros in another way now"; exit 1; }
10
8
SEEN

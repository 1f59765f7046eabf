#!/usr/bin/env bash
# jsonargparse 4.53.0 with pyyaml 6.0.4: the keys of an option of type `dict[str, float]` are not checked. YAML's `no`,
# `yes`, `null` and `007` as keys arrive as False, True, None and 7, though a wrong value is refused, and so is a wrong key
# of a `dict[int, float]`. A look-up by the text then finds nothing.
# Expected: an error as for values (a `list[str]` refuses `[no]`), or text.
# Seen: {False: 1.0, True: 2.0, None: 3.0, 7: 4.0}; as `--x.no 1.0` on the command line the key is the text 'no'.
# Here: mappings from class names are checked against the class names, not trusted to be text.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

uv venv --quiet "$work/env"
uv pip install --quiet --python "$work/env/bin/python" 'jsonargparse==4.53.0' pyyaml==6.0.4
cat >"$work/show.py" <<'PY'
import sys

from jsonargparse import ArgumentParser

parser = ArgumentParser()
parser.add_argument("--x", type=dict[str, float])
print(parser.parse_args(sys.argv[1:]).x)
PY
{
    "$work/env/bin/python" "$work/show.py" --x '{no: 1.0, yes: 2.0, null: 3.0, 007: 4.0}'
    "$work/env/bin/python" "$work/show.py" --x.no 1.0
} >"$work/seen"
diff - "$work/seen" <<'SEEN' || { echo "jsonargparse treats the keys of a dict in another way now"; exit 1; }
{False: 1.0, True: 2.0, None: 3.0, 7: 4.0}
{'no': 1.0}
SEEN

#!/usr/bin/env bash
# jsonargparse 4.53.0 (with PyYAML 6.0.3): what `parser.dump` writes, the same parser reads back as something else.
# The text "1e-3" in a list of texts is dumped without quotes, and without them read as the number 0.001, which is then
# refused: it is no text. PyYAML's own YAML 1.1 needs a dot in a number with an exponent, so it sees no reason to quote;
# jsonargparse's loader also takes numbers without one.
# Expected: a dumped configuration is read back as it was.
# Seen: dumped "names:\n- 1e-3\n", and the error "Expected a <class 'str'>. Got value: 0.001".
# Here: a run's config.yaml is parsed again by tl resume, with folders and classes of any name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet "$work/venv"
uv pip install --quiet --python "$work/venv/bin/python" jsonargparse==4.53.0 PyYAML==6.0.3
"$work/venv/bin/python" - <<'PYTHON'
import sys

from jsonargparse import ArgumentError, ArgumentParser

parser = ArgumentParser(exit_on_error=False)
parser.add_argument("--names", type=list[str])
dumped = parser.dump(parser.parse_object({"names": ["1e-3"]}))
print(repr(dumped))
if dumped != "names:\n- 1e-3\n":
    sys.exit("changed: the text is dumped otherwise")
try:
    read = parser.parse_string(dumped)
except ArgumentError as error:
    print(next(line.strip() for line in str(error).splitlines() if "0.001" in line))
else:
    sys.exit(f"changed: it is read back as {read.names!r}")
PYTHON

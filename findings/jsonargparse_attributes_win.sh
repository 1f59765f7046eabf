#!/usr/bin/env bash
# jsonargparse 4.53.0 with docstring-parser 0.18.0: where a class's Google-style docstring has the same name under `Args:` and
# under `Attributes:`, `--help` explains the argument by the text of the attribute.
# Expected: the text under `Args:`, which is about the argument.
# Seen: --m.x "What it became." although the argument is "What to give."
# Here: an attribute that has the name of an argument is documented once, under Args.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

uv venv --quiet "$work/env"
uv pip install --quiet --python "$work/env/bin/python" 'jsonargparse==4.53.0' pyyaml==6.0.4 docstring-parser==0.18.0
"$work/env/bin/python" - <<'PY' >"$work/seen"
from jsonargparse import ArgumentParser


class Model:
    """A model.

    Args:
        x: What to give.
        y: Another.

    Attributes:
        x: What it became.
    """

    def __init__(self, x: int = 1, y: int = 2) -> None:
        self.x = x * y


parser = ArgumentParser()
parser.add_class_arguments(Model, "m")
print({action.dest: action.help for action in parser._actions if action.dest.startswith("m.")})
PY
diff - "$work/seen" <<'SEEN' || { echo "jsonargparse explains arguments in another way now"; exit 1; }
{'m.x': 'What it became.', 'm.y': 'Another.'}
SEEN

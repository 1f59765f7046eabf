#!/usr/bin/env bash
# openvino 2026.4.1 (with openvino-telemetry 2025.2.0): `import openvino` alone writes into the home folder.
#
# Importing it makes ~/intel with a client identifier (a UUID, openvino_ga_cid) and a count of uses (stats), before any
# function is called and without a question; no converter or tool is run. The identifier is what its reports of use are sent
# under. Where openvino_telemetry cannot be imported, openvino works alike and leaves nothing.
#
# Expected: that importing an inference library leaves the home folder as it is.
# Seen: openvino_ga_cid and stats in ~/intel after `import openvino`; nothing there without openvino_telemetry.
# Here: backbones/engines.py imports openvino without openvino_telemetry.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
uv venv --quiet --python 3.11 "$work/venv"
uv pip install --quiet --python "$work/venv/bin/python" openvino==2026.4.1 openvino-telemetry==2025.2.0 numpy==2.3.5

mkdir "$work/first" "$work/second"
listed() { (cd "$1" && [ -d intel ] && ls intel | sort | paste -sd' ' -) || echo nothing; }

# CI is unset, as the reports are left out there, and a proxy that is not there keeps this one from being sent.
run() { env -u CI -u TF_BUILD -u JENKINS_URL HOME="$1" https_proxy=http://127.0.0.1:9 "$work/venv/bin/python" -c "$2"; }
run "$work/first" 'import openvino'
run "$work/second" 'import sys; sys.modules["openvino_telemetry"] = None; import openvino; openvino.Core()'

seen="imported: $(listed "$work/first")
imported without openvino_telemetry: $(listed "$work/second")"
expected="imported: openvino_ga_cid stats
imported without openvino_telemetry: nothing"
echo "$seen"
[ "$seen" = "$expected" ] || { echo "changed: not what is stated above"; exit 1; }

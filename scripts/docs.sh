#!/usr/bin/env bash
# Build the documentation site into out/docs. Sphinx and its dependencies are installed into .venv at the first call
# (--no-deps, so that no dependency of the engines changes).
set -euo pipefail
cd "$(dirname "$0")/.."
lock=requirements/docs.lock
ready=.venv/.docs-ready
stamp=$(cksum < "$lock")
if [ ! -f "$ready" ] || [ "$(cat "$ready")" != "$stamp" ] || ! .venv/bin/python -c 'import furo, myst_nb, sphinx, sphinx_copybutton' 2>/dev/null; then
  printf '== installing Sphinx into .venv\n'
  .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -r "$lock"
  echo "$stamp" > "$ready"
fi
exec .venv/bin/python docs/site/build.py

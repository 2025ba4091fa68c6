#!/usr/bin/env bash
# Write requirements/cpu.lock anew from what .venv holds; the heading comments stay.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=requirements/cpu.lock
new=$(mktemp)
grep '^#' "$lock" > "$new"
.venv/bin/python -m pip freeze --exclude-editable \
  | grep -v -E '^(torch|torchvision|torchaudio|torchcodec|llmlab|pip|wheel)(=| @)' \
  | grep -v -i -x -F -f <(grep -v '^#' requirements/docs.lock) >> "$new"   # what only `make docs` installs
mv "$new" "$lock"

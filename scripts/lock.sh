#!/usr/bin/env bash
# Rewrite requirements/cpu.lock from the packages in .venv; its leading comments are kept.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=requirements/cpu.lock
new=$(mktemp)
grep '^#' "$lock" > "$new"
.venv/bin/python -m pip freeze --exclude-editable \
  | grep -v -E '^(torch|torchvision|torchaudio|torchcodec|llmlab|pip|wheel)(=| @)' \
  | grep -v -i -x -F -f <(grep -v '^#' requirements/docs.lock) >> "$new"   # packages that only `make docs` installs
mv "$new" "$lock"

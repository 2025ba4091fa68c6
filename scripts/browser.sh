#!/usr/bin/env bash
# Install Chromium and playwright for the browser tests, if possible. Never fails: without them those tests are
# skipped with the reason. Fast if they are already installed.
cd "$(dirname "$0")/.." || exit 0

say() { printf '== browser tests: %s\n' "$*"; }

if ! .venv/bin/python -c 'import playwright' 2>/dev/null; then
  .venv/bin/python -m pip --disable-pip-version-check install --quiet playwright \
    || { say "playwright could not be installed; they will be skipped"; exit 0; }
fi
for name in "${LLMLAB_CHROMIUM:-}" chromium chromium-browser google-chrome; do
  if [ -n "$name" ] && command -v "$name" >/dev/null; then exit 0; fi
done
if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  say "installing Chromium with apt-get"
  { apt-get install -y -qq --no-install-recommends chromium >/dev/null 2>&1 \
    || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null; }; } \
    || say "Chromium could not be installed; they will be skipped"
else
  say "no Chromium found; they will be skipped. Install it (sudo apt-get install chromium), or set LLMLAB_CHROMIUM to its path"
fi
exit 0

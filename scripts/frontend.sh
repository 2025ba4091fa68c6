#!/usr/bin/env bash
# The widgets' front end: `build` writes llmlab/widgets/static, `check` lints and tests frontend/ and holds the built
# files against it. Only these two need node; where it isn't, `check` is skipped with the reason (CI=true: it fails).
set -euo pipefail
cd "$(dirname "$0")/../frontend"

without() {
  if [ "${1:-}" = build ] || [ "${CI:-}" = true ]; then printf 'front end: %s\n' "$2" >&2; exit 1; fi
  printf '== front end not checked: %s\n' "$2"
  exit 0
}

command -v npm >/dev/null || without "$1" "npm isn't installed (apt-get install npm, or https://nodejs.org; node 20 or newer)"
stamp=$(cksum < package-lock.json)
if [ "$(cat node_modules/.stamp 2>/dev/null)" != "$stamp" ]; then
  npm ci --no-progress --loglevel=error || without "$1" "its packages couldn't be installed (npm ci)"
  echo "$stamp" > node_modules/.stamp
fi

case "$1" in
  build)
    npm run --silent build
    ;;
  check)
    npm run --silent lint
    npm run --silent check
    npm run --silent test
    ;;
esac

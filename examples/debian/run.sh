#!/bin/sh
# Makes a Debian root file system, imports it as a base image, and builds on it.
#   DEBIAN_TAR: a root file system made before; without it mmdebstrap makes one (a minute, network)
set -eu
cd "$(dirname "$0")"
: "${MICA:=mica}"
if [ -z "${DEBIAN_TAR:-}" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    DEBIAN_TAR=$folder/debian.tar
    mmdebstrap --variant=minbase bookworm "$DEBIAN_TAR"
fi
"$MICA" import --change 'CMD ["bash"]' "$DEBIAN_TAR" debian:local
"$MICA" build -t report .
"$MICA" run --rm report
echo "== again: nothing has changed, every step is answered from the cache"
"$MICA" build -t report .
"$MICA" history report

#!/bin/sh
. /etc/os-release
echo "$PRETTY_NAME, $(wc -l < /usr/local/share/example/packages) packages, running as $(id -un)"

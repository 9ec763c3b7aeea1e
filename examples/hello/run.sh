#!/bin/sh
# A C program in an image that has nothing else: dynamic (fails), static, and packed with what it needs.
set -eu
cd "$(dirname "$0")"
: "${MICA:=mica}"
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
cp Dockerfile "$context"

echo "== a dynamic program: the build succeeds, the start fails, and mica says why"
gcc -o "$context/hello" hello.c
"$MICA" build -q -t hello:dynamic "$context"
code=0
"$MICA" run --rm hello:dynamic || code=$?
echo "exit code $code"
[ "$code" -eq 127 ]

echo "== way out 1: link it statically"
gcc -static -o "$context/hello" hello.c
"$MICA" build -q -t hello:static "$context"
"$MICA" run --rm hello:static

echo "== way out 2: take along what it needs"
gcc -o "$context/hello" hello.c
"$MICA" pack --list "$context/hello"
"$MICA" pack -t hello:packed "$context/hello"
"$MICA" run --rm hello:packed

"$MICA" images hello

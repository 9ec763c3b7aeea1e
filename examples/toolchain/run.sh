#!/bin/sh
# Packs this machine's C compiler into an image, and builds a program with it in two stages.
set -eu
cd "$(dirname "$0")"
: "${MICA:=mica}"

add() {
    if [ -e "$1" ]; then files="$files $1"; fi
}
files=

# The programs that gcc starts. Their names are in no ELF header, but gcc can be asked.
for name in cc1 collect2 as ld; do
    path=$(gcc -print-prog-name=$name)
    case $path in
    /*) add "$path" ;;
    *) add "$(command -v "$path")" ;;
    esac
done
# What a static program is linked with; gcc's own headers.
for name in crt1.o crti.o crtn.o crtbeginT.o crtend.o libgcc.a libgcc_eh.a libc.a liblto_plugin.so include; do
    add "$(gcc -print-file-name=$name)"
done
# What <stdio.h> includes. With several architectures on one machine, a part is in a folder of its own.
for folder in /usr/include "/usr/include/$(gcc -print-multiarch)"; do
    for name in stdio.h features.h features-time64.h stdc-predef.h bits gnu sys; do
        add "$folder/$name"
    done
done

# shellcheck disable=SC2086 # paths of a toolchain have no blanks
"$MICA" pack --env PATH=/usr/bin:/bin -t toolchain "$(command -v gcc)" $files
"$MICA" build -t hello:two-stage .
"$MICA" run --rm hello:two-stage
"$MICA" images

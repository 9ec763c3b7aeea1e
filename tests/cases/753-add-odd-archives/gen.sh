set -eu
mkdir t; echo hi > t/x; ln -s x t/l; mkdir t/d; chmod 700 t/d; echo y > t/d/y
touch -d @1700000000 t/d/y t/d t/x t
for s in gz:gzip bz2:bzip2 xz:xz zst:zstd; do (cd t && tar --mtime=@1700000000 --owner=7 --group=8 -cf - x l d) | ${s#*:} -c > a.tar.${s%:*}; done
echo "no archive" > text.tar
tar -cf - -T /dev/null | gzip -nc > empty.tar.gz
cp a.tar.gz renamed
head -c 10 a.tar.gz > cut.tar.gz
: > nothing
rm -r t .keep

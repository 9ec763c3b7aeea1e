set -eu
mkdir t; mkdir t/sub; echo s > t/sub/s; (cd t && tar --mtime=@1700000000 --owner=0 --group=0 -cf ../t.tar sub); rm -r t

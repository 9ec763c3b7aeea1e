set -eu
mkdir t; echo s > t/s; (cd t && tar --mtime=@1700000000 --owner=3 --group=4 -cf ../t.tar s); rm -r t

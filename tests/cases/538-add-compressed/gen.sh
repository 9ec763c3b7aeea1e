mkdir t; mkdir -m 750 t/d; echo one > t/d/one; echo two > t/two; chmod 640 t/two; ln -s two t/l; find t -exec touch -h -d '2020-01-01 UTC' {} +
tar --sort=name --owner=12 --group=34 --numeric-owner -cf a.tar -C t .

gzip -n -k a.tar; bzip2 -k a.tar; xz -k a.tar; cp a.tar a.txt; cp a.tar.gz z.1; cp a.tar.xz z.2
echo text | gzip -n > plain.gz; rm -r t; find . -type f -exec touch -d '2021-01-01 UTC' {} +

mkdir t; mkdir -m 750 t/d; echo one > t/d/one; echo two > t/two; chmod 640 t/two; ln -s two t/l; find t -exec touch -h -d '2020-01-01 UTC' {} +
tar --sort=name --owner=12 --group=34 --numeric-owner -cf a.tar -C t .
rm -r t

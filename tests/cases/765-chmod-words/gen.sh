set -eu
mkdir -p d/s; echo x > d/x; chmod 755 d/x; echo n > d/n; chmod 604 d/n; echo q > d/s/q; chmod 600 d/s/q; chmod 710 d/s; ln -s n d/l; rm .keep

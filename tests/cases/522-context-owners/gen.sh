chown -R 1234:4321 d; chmod 6711 d/x.txt; chmod 2770 d/s

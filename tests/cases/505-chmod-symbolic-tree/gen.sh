chmod 700 d/s; chmod 711 d/s/t; chmod 750 d/x.txt; chmod 4600 d/y.md

chmod 750 d; chmod 711 d/s

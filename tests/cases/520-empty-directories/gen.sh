mkdir -p empty deep/empty; chmod 710 empty; chmod 1777 deep/empty

ln -s x/a.txt link; ln -s a.txt l-gone; ln -s x dirlink

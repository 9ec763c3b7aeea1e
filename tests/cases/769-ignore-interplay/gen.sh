set -eu
printf '# comment\na/**\n!a/b/c/keep\n*.md\n!README.md\n  sub/n.md  \n/tmp\n!tmp/keep\ntmp/keep/none\ntemp\\?\n\n.hid*\n\\[b]\n!\\[b]\nsp ace\n./sub/./x\n' > .dockerignore

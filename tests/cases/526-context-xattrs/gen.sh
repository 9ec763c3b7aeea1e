echo c > cap; chmod 755 cap; echo u > u
$PY -c 'import os,struct; os.setxattr("cap","security.capability",struct.pack("<5I",0x02000001,1<<13,0,0,0)); os.setxattr("u","user.diff",b"v")'

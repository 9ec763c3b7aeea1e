set -eu
rm .keep; $PY - <<'E'
import tarfile,io
t=tarfile.open('t.tar','w',format=tarfile.PAX_FORMAT)
def add(name,type=tarfile.REGTYPE,data=b'',mode=0o644,link='',uid=1,gid=2,**k):
    i=tarfile.TarInfo(name); i.type=type; i.size=len(data); i.mode=mode; i.linkname=link; i.uid=uid; i.gid=gid; i.mtime=1700000000
    for a,v in k.items(): setattr(i,a,v)
    t.addfile(i,io.BytesIO(data))
add('./',tarfile.DIRTYPE,mode=0o711)
add('./p/',tarfile.DIRTYPE,mode=0o1777)
add('p/f',data=b'f',mode=0o4755)
add('p/h',tarfile.LNKTYPE,mode=0o4755,link='p/f')
add('p/s',tarfile.SYMTYPE,link='/etc/passwd')
add('p/r',tarfile.SYMTYPE,link='../../../x')
add('p/fifo',tarfile.FIFOTYPE)
add('p/c',tarfile.CHRTYPE,devmajor=1,devminor=3)
add('q/deep/f',data=b'no parents')
add('p/f2',data=b'one'); add('p/f2',data=b'two')
add('/abs',data=b'abs')
add('p/.wh.x',data=b'')
add('p/xattr',data=b'x',pax_headers={'SCHILY.xattr.user.k':'v'})
add('p/long'+'g'*120,data=b'l')
add('p/dirfile',tarfile.DIRTYPE,mode=0o755); 
t.close()
E

//! What an ELF file says about how it wants to be started.

use crate::bytes::{Endian, Fields, until_nul};
use crate::machine::Machine;

/// The kernel refuses larger program header tables (`fs/binfmt_elf.c`, `load_elf_phdrs`).
const PROGRAM_HEADERS_BYTES: usize = 64 * 1024;
/// `PATH_MAX`: the kernel refuses a longer interpreter; no path in the dynamic section is longer either.
const STRING_BYTES: usize = 4096;
/// A `DT_RPATH` may list many directories.
const SEARCH_PATH_BYTES: usize = 64 * 1024;
/// Far above any real dynamic section (a few dozen entries).
const DYNAMIC_BYTES: u64 = 1024 * 1024;
/// Far above any real program; bounds what a hostile file makes us look for.
const NEEDED: usize = 1024;

/// The part of an ELF file that decides whether and how it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The processor it is for.
    pub machine: Machine,
    /// The loader that has to start it (`PT_INTERP`); static programs and most libraries have none.
    pub interpreter: Option<Vec<u8>>,
    /// The libraries it needs (`DT_NEEDED`), in the order they are loaded.
    pub needed: Vec<Vec<u8>>,
    /// Where to search first, `:`-separated (`DT_RPATH`); ignored by glibc when there is a run path.
    pub rpath: Option<Vec<u8>>,
    /// Where to search for its own libraries, `:`-separated (`DT_RUNPATH`).
    pub runpath: Option<Vec<u8>>,
    /// The name under which it satisfies others (`DT_SONAME`).
    pub soname: Option<Vec<u8>>,
    /// The system's directories are not searched for it (`DF_1_NODEFLIB`).
    pub no_default_libraries: bool,
}

/// Why a file could not be read as ELF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// It does not start with the ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// It starts like one, and then breaks the format.
    #[error("damaged ELF file: {what}")]
    Malformed {
        /// The part that is wrong.
        what: &'static str,
    },
}

/// Gives up to so many bytes from an offset of the file on.
pub(crate) type ReadAt<'a> = dyn Fn(u64, usize) -> Option<Vec<u8>> + 'a;

impl Object {
    /// Reads the headers and the dynamic section; nothing else of the file is touched.
    ///
    /// `read` gives up to that many bytes from that offset on, fewer at the end of the file.
    ///
    /// # Errors
    /// [`ObjectError`]: another format, or headers that contradict themselves.
    pub fn read(read: &ReadAt<'_>) -> Result<Self, ObjectError> {
        let header = read(0, 64).ok_or(ObjectError::NotElf)?;
        let layout = Layout::of(&header)?;
        let segments = layout.segments(&header, read)?;
        let mut object = Self {
            machine: layout.machine,
            interpreter: None,
            needed: Vec::new(),
            rpath: None,
            runpath: None,
            soname: None,
            no_default_libraries: false,
        };
        if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_INTERP) {
            object.interpreter = Some(interpreter(segment, read)?);
        }
        if let Some(segment) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) {
            let dynamic = Dynamic::read(&layout, segment, read)?;
            dynamic.fill(&mut object, &segments, read)?;
        }
        Ok(object)
    }
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;

const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_SONAME: u64 = 14;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
const DF_1_NODEFLIB: u64 = 0x800;

/// Word size and byte order, which decide where each field is.
struct Layout {
    machine: Machine,
}

struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
}

fn malformed(what: &'static str) -> ObjectError {
    ObjectError::Malformed { what }
}

impl Layout {
    fn of(header: &[u8]) -> Result<Self, ObjectError> {
        if !header.starts_with(b"\x7fELF") {
            return Err(ObjectError::NotElf);
        }
        let bits = match header.get(4) {
            Some(1) => 32,
            Some(2) => 64,
            _ => return Err(malformed("word size")),
        };
        let endian = match header.get(5) {
            Some(1) => Endian::Little,
            Some(2) => Endian::Big,
            _ => return Err(malformed("byte order")),
        };
        let number = Fields { bytes: header, endian }.u16(18).ok_or(malformed("file header"))?;
        Ok(Self { machine: Machine { number, bits, endian } })
    }

    fn fields<'a>(&self, bytes: &'a [u8]) -> Fields<'a> {
        Fields { bytes, endian: self.machine.endian }
    }

    /// A word at one offset in 32-bit files, at another one in 64-bit files.
    fn word(&self, bytes: &[u8], in_32: usize, in_64: usize) -> Option<u64> {
        let fields = self.fields(bytes);
        if self.machine.bits == 64 { fields.u64(in_64) } else { fields.u32(in_32).map(u64::from) }
    }

    fn segments(&self, header: &[u8], read: &ReadAt<'_>) -> Result<Vec<Segment>, ObjectError> {
        let fields = self.fields(header);
        let (size_at, count_at, entry_bytes) =
            if self.machine.bits == 64 { (54, 56, 56) } else { (42, 44, 32) };
        let offset = self.word(header, 28, 32).ok_or(malformed("file header"))?;
        let entry = usize::from(fields.u16(size_at).ok_or(malformed("file header"))?);
        let count = usize::from(fields.u16(count_at).ok_or(malformed("file header"))?);
        if count == 0 {
            return Ok(Vec::new());
        }
        if entry != entry_bytes || count * entry > PROGRAM_HEADERS_BYTES {
            return Err(malformed("program headers"));
        }
        let table = read(offset, count * entry).ok_or(malformed("program headers"))?;
        if table.len() < count * entry {
            return Err(malformed("program headers"));
        }
        table
            .chunks_exact(entry)
            .map(|entry| self.segment(entry).ok_or(malformed("program headers")))
            .collect()
    }

    fn segment(&self, entry: &[u8]) -> Option<Segment> {
        Some(Segment {
            kind: self.fields(entry).u32(0)?,
            offset: self.word(entry, 4, 8)?,
            address: self.word(entry, 8, 16)?,
            file_bytes: self.word(entry, 16, 32)?,
        })
    }
}

fn interpreter(segment: &Segment, read: &ReadAt<'_>) -> Result<Vec<u8>, ObjectError> {
    let length = usize::try_from(segment.file_bytes).unwrap_or(usize::MAX);
    if !(2..=STRING_BYTES).contains(&length) {
        return Err(malformed("interpreter"));
    }
    let bytes = read(segment.offset, length).ok_or(malformed("interpreter"))?;
    // The kernel demands that the last byte is the NUL; a shorter string inside is what it then uses.
    match until_nul(&bytes) {
        Some(path) if bytes.len() == length && !path.is_empty() => Ok(path.to_vec()),
        _ => Err(malformed("interpreter")),
    }
}

/// The entries of the dynamic section that matter, strings still as offsets.
#[derive(Default)]
struct Dynamic {
    strings_address: Option<u64>,
    strings_bytes: Option<u64>,
    needed: Vec<u64>,
    soname: Option<u64>,
    rpath: Option<u64>,
    runpath: Option<u64>,
    flags_1: u64,
}

impl Dynamic {
    fn read(layout: &Layout, segment: &Segment, read: &ReadAt<'_>) -> Result<Self, ObjectError> {
        let length = usize::try_from(segment.file_bytes.min(DYNAMIC_BYTES)).unwrap_or(0);
        let bytes = read(segment.offset, length).ok_or(malformed("dynamic section"))?;
        let entry_bytes = if layout.machine.bits == 64 { 16 } else { 8 };
        let mut dynamic = Self::default();
        for entry in bytes.chunks_exact(entry_bytes) {
            let tag = layout.word(entry, 0, 0).ok_or(malformed("dynamic section"))?;
            let value = layout.word(entry, 4, 8).ok_or(malformed("dynamic section"))?;
            match tag {
                0 => break,
                DT_NEEDED if dynamic.needed.len() < NEEDED => dynamic.needed.push(value),
                DT_NEEDED => return Err(malformed("too many needed libraries")),
                DT_STRTAB => dynamic.strings_address = Some(value),
                DT_STRSZ => dynamic.strings_bytes = Some(value),
                DT_SONAME => dynamic.soname = Some(value),
                DT_RPATH => dynamic.rpath = Some(value),
                DT_RUNPATH => dynamic.runpath = Some(value),
                DT_FLAGS_1 => dynamic.flags_1 = value,
                _ => {}
            }
        }
        Ok(dynamic)
    }

    fn fill(&self, object: &mut Object, segments: &[Segment], read: &ReadAt<'_>) -> Result<(), ObjectError> {
        object.no_default_libraries = self.flags_1 & DF_1_NODEFLIB != 0;
        let strings = Strings { offset: self.strings_offset(segments), size: self.strings_bytes, read };
        let optional = |at: Option<u64>, limit| at.map(|at| strings.get(at, limit)).transpose();
        object.soname = optional(self.soname, STRING_BYTES)?;
        object.rpath = optional(self.rpath, SEARCH_PATH_BYTES)?;
        object.runpath = optional(self.runpath, SEARCH_PATH_BYTES)?;
        object.needed =
            self.needed.iter().map(|at| strings.get(*at, STRING_BYTES)).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// The dynamic section has addresses; the file offset follows from the segment that is loaded there.
    fn strings_offset(&self, segments: &[Segment]) -> Option<u64> {
        let address = self.strings_address?;
        segments.iter().filter(|segment| segment.kind == PT_LOAD).find_map(|segment| {
            let inside = address.checked_sub(segment.address)?;
            (inside < segment.file_bytes).then(|| segment.offset.checked_add(inside))?
        })
    }
}

struct Strings<'a> {
    offset: Option<u64>,
    size: Option<u64>,
    read: &'a ReadAt<'a>,
}

impl Strings<'_> {
    fn get(&self, at: u64, limit_bytes: usize) -> Result<Vec<u8>, ObjectError> {
        self.find(at, limit_bytes).ok_or(malformed("string table"))
    }

    fn find(&self, at: u64, limit_bytes: usize) -> Option<Vec<u8>> {
        let rest = usize::try_from(self.size?.checked_sub(at)?).unwrap_or(usize::MAX);
        let bytes = (self.read)(self.offset?.checked_add(at)?, rest.min(limit_bytes))?;
        Some(until_nul(&bytes)?.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ElfFile;

    fn parse(bytes: &[u8]) -> Result<Object, ObjectError> {
        Object::read(&|offset, length| {
            let from = usize::try_from(offset).ok()?.min(bytes.len());
            Some(bytes[from..(from + length).min(bytes.len())].to_vec())
        })
    }

    #[test]
    fn a_dynamic_program_is_read_in_every_word_size_and_byte_order() {
        for architecture in ["amd64", "386", "s390x", "ppc", "arm64"] {
            let file = ElfFile::new(architecture)
                .interpreter("/lib/ld.so.1")
                .needed("libm.so.6")
                .needed("libc.so.6")
                .soname("libself.so.1")
                .rpath("/opt/a")
                .runpath("$ORIGIN/../lib:/opt/b");
            let object = parse(&file.build()).unwrap();
            assert_eq!(object.machine.architecture(), Some(architecture));
            assert_eq!(object.interpreter.as_deref(), Some(&b"/lib/ld.so.1"[..]));
            assert_eq!(object.needed, [b"libm.so.6".to_vec(), b"libc.so.6".to_vec()]);
            assert_eq!(object.soname.as_deref(), Some(&b"libself.so.1"[..]));
            assert_eq!(object.rpath.as_deref(), Some(&b"/opt/a"[..]));
            assert_eq!(object.runpath.as_deref(), Some(&b"$ORIGIN/../lib:/opt/b"[..]));
        }
    }

    #[test]
    fn a_static_program_has_no_interpreter_and_needs_nothing() {
        let object = parse(&ElfFile::new("arm64").build()).unwrap();
        assert_eq!((object.interpreter, object.needed), (None, vec![]));
    }

    #[test]
    fn other_formats_are_told_apart_from_damaged_files() {
        assert_eq!(parse(b"#!/bin/sh\n"), Err(ObjectError::NotElf));
        assert_eq!(parse(b""), Err(ObjectError::NotElf));
        assert!(matches!(parse(b"\x7fELF"), Err(ObjectError::Malformed { .. })));
    }

    #[test]
    fn no_truncated_or_altered_file_panics() {
        let whole = ElfFile::new("amd64").interpreter("/lib/ld.so").needed("libc.so.6").runpath("/x").build();
        for length in 0..whole.len() {
            let _ = parse(&whole[..length]);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut altered = whole.clone();
                altered[at] = value;
                let _ = parse(&altered);
            }
        }
    }
}

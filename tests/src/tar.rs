//! Tars that no honest tool writes.

/// Size of a header, and what data is padded to.
const BLOCK: usize = 512;

/// Builds a tar header by header; nothing is checked.
#[derive(Debug, Clone, Default)]
pub struct TarMaker(Vec<u8>);

/// The fields of a header that tests change.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    /// At most 100 bytes; longer ones need [`TarMaker::pax`].
    pub name: &'a [u8],
    /// `b'0'` file, `b'1'` hard link, `b'2'` symbolic link, and so on.
    pub kind: u8,
    /// Target of links.
    pub link: &'a [u8],
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// What the header says about the size of the data.
    pub size: u64,
    /// Device numbers.
    pub device: (u32, u32),
}

impl Default for Member<'_> {
    fn default() -> Self {
        Self { name: b"", kind: b'0', link: b"", mode: 0o644, uid: 0, size: 0, device: (0, 0) }
    }
}

impl TarMaker {
    /// An empty tar.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header without data.
    #[must_use]
    pub fn member(mut self, member: &Member<'_>) -> Self {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, member.name);
        put(100, format!("{:07o}", member.mode).as_bytes());
        put(108, format!("{:07o}", member.uid).as_bytes());
        put(116, b"0000000");
        put(124, format!("{:011o}", member.size).as_bytes());
        put(136, format!("{:011o}", 1_000_000_000).as_bytes());
        put(156, &[member.kind]);
        put(157, member.link);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", member.device.0).as_bytes());
        put(337, format!("{:07o}", member.device.1).as_bytes());
        put(148, b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self
    }

    /// Adds bytes, padded to a block.
    #[must_use]
    pub fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// Adds a file.
    #[must_use]
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        let member = Member { name: name.as_bytes(), size: content.len() as u64, ..Member::default() };
        self.member(&member).data(content)
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(self, name: &str) -> Self {
        self.member(&Member { name: name.as_bytes(), kind: b'5', mode: 0o755, ..Member::default() })
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.member(&Member {
            name: name.as_bytes(),
            kind: b'2',
            link: target.as_bytes(),
            mode: 0o777,
            ..Member::default()
        })
    }

    /// Adds a hard link.
    #[must_use]
    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(&Member {
            name: name.as_bytes(),
            kind: b'1',
            link: target.as_bytes(),
            ..Member::default()
        })
    }

    /// Adds an extended header for the next member.
    #[must_use]
    pub fn pax(self, records: &[(&[u8], &[u8])]) -> Self {
        let data: Vec<u8> = records.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
        self.extension(b'x', &data)
    }

    /// Adds any extension member: `x`, `g`, `L`, `K`.
    #[must_use]
    pub fn extension(self, kind: u8, data: &[u8]) -> Self {
        let member = Member { name: b"ext", kind, size: data.len() as u64, ..Member::default() };
        self.member(&member).data(data)
    }

    /// The tar with its two final blocks.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }

    /// The tar as it is, cut off.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.0
    }
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn pax_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length += 1;
    }
    [format!("{length} ").as_bytes(), key, b"=", value, b"\n"].concat()
}

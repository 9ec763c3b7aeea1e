//! Tar headers of image archives: short names, no owners, time 0. Layers have a format of their own in mica-archive.

/// One entry's header.
pub(crate) struct Header<'a> {
    /// At most 100 bytes; directories end in a slash.
    pub(crate) name: &'a str,
    pub(crate) mode: u32,
    pub(crate) size_bytes: u64,
    pub(crate) directory: bool,
}

/// The largest size that eleven octal digits hold.
const OCTAL_LIMIT: u64 = 1 << 33;

impl Header<'_> {
    /// The 512 bytes.
    pub(crate) fn to_bytes(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let name = self.name.as_bytes();
        let (prefix, name) = if name.len() > 100 {
            // blobs/sha512/<128 hex>: the ustar prefix takes the folders
            let cut = name.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            (&name[..cut], &name[cut + 1..])
        } else {
            (&name[..0], name)
        };
        put(&mut block, 0, &name[..name.len().min(100)]);
        put(&mut block, 100, format!("{:07o}", self.mode).as_bytes());
        put(&mut block, 108, b"0000000");
        put(&mut block, 116, b"0000000");
        self.put_size(&mut block);
        put(&mut block, 136, b"00000000000");
        put(&mut block, 148, b"        ");
        block[156] = if self.directory { b'5' } else { b'0' };
        put(&mut block, 257, b"ustar\x0000");
        put(&mut block, 345, &prefix[..prefix.len().min(155)]);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
        block
    }

    /// Octal up to 8 GiB, base-256 above, which every reader of image archives knows.
    fn put_size(&self, block: &mut [u8; 512]) {
        if self.size_bytes < OCTAL_LIMIT {
            put(block, 124, format!("{:011o}", self.size_bytes).as_bytes());
        } else {
            block[124] = 0x80;
            put(block, 128, &self.size_bytes.to_be_bytes());
        }
    }
}

fn put(block: &mut [u8; 512], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// The zeros after `size_bytes` of data.
pub(crate) fn padding(size_bytes: u64) -> &'static [u8] {
    const ZEROS: [u8; 512] = [0; 512];
    let rest = (size_bytes % 512) as usize;
    if rest == 0 { &[] } else { &ZEROS[rest..] }
}

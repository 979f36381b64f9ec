//! A frame of the WAL as bytes (its form: see `wal`).

/// Frames begin at multiples of this: no write touches a page with what was acknowledged before.
pub(in crate::buffer) const PAGE: u64 = 4096;
const MAGIC: [u8; 8] = *b"\xffHFLOG\x00\x01";
/// The length of a head, in bytes.
pub(super) const HEAD: usize = 8 + 8 + 8 + 4 + 4 + 4 + 4;
const CHECK: usize = 4;

/// The head of a frame whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) struct Head {
    /// The generation it belongs to.
    pub(in crate::buffer) generation: u64,
    /// The place of its first record; others follow without a gap.
    pub(in crate::buffer) first: u64,
    /// How many records it has.
    pub(in crate::buffer) count: u32,
    pub(in crate::buffer) length: u32,
    pub(super) body_check: [u8; CHECK],
}

impl Head {
    pub(in crate::buffer) fn new(
        generation: u64,
        first: u64,
        count: u32,
        body: &[u8],
    ) -> Option<Self> {
        let length = u32::try_from(body.len()).ok()?;
        let body_check = crc32fast::hash(body).to_le_bytes();
        Some(Self { generation, first, count, length, body_check })
    }

    pub(in crate::buffer) fn encode(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.count.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.length.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.body_check);
        let check = crc32fast::hash(&bytes[..HEAD - CHECK]).to_le_bytes();
        bytes[HEAD - CHECK..].copy_from_slice(&check);
        bytes
    }

    /// The head with which a frame begins, if it is sound.
    pub(in crate::buffer) fn decode(frame: &[u8]) -> Option<Self> {
        let bytes = frame.first_chunk::<HEAD>()?;
        let (content, check) = bytes.split_last_chunk::<CHECK>()?;
        let sound = bytes.starts_with(&MAGIC) && crc32fast::hash(content).to_le_bytes() == *check;
        sound.then(|| Self {
            generation: u64::from_le_bytes(array(&bytes[8..16])),
            first: u64::from_le_bytes(array(&bytes[16..24])),
            count: u32::from_le_bytes(array(&bytes[24..28])),
            length: u32::from_le_bytes(array(&bytes[28..32])),
            body_check: array(&bytes[32..36]),
        })
    }

    /// Where the frame ends that begins at `at`.
    pub(in crate::buffer) fn end(&self, at: u64) -> u64 {
        at + (HEAD as u64 + u64::from(self.length)).next_multiple_of(PAGE)
    }

    /// The place after its last record.
    pub(in crate::buffer) fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// A frame as it was read.
#[derive(Clone, Debug)]
pub(in crate::buffer) struct Frame {
    pub(in crate::buffer) head: Head,
    /// Its body: what the head says it is, if `is_sound`.
    pub(in crate::buffer) body: Vec<u8>,
    pub(in crate::buffer) is_sound: bool,
}

impl Frame {
    /// Its records, and last, where a length does not fit into what is left of the body, that rest.
    pub(in crate::buffer) fn records(&self) -> impl Iterator<Item = &[u8]> {
        records_of(&self.body).take(usize::try_from(self.head.count).unwrap_or(usize::MAX))
    }
}

/// The records of a body, or of what may be one.
pub(super) fn records_of(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let whole = rest.split_first_chunk::<4>().and_then(|(length, after)| {
            after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        });
        let record;
        (record, rest) = whole.unwrap_or((rest, &[]));
        Some(record).filter(|record| !record.is_empty())
    })
}

/// Copies a slice whose length the caller took from the layout above.
fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(slice);
    bytes
}

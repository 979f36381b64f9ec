//! The numbers of generations: what the WAL holds between two times that it was emptied into the tables.

/// The generation after another, or a first one.
pub(in crate::buffer) fn next_generation(generation: u64) -> u64 {
    if generation > 0 {
        return generation + (1 << 24);
    }
    let mut random = [0; 3];
    // Without a random number it is a generation all the same.
    let _ = getrandom::fill(&mut random);
    let [a, b, c] = random;
    1 << 24 | u64::from(u32::from_le_bytes([a, b, c, 0]))
}

/// Which buffer file's WAL a generation is of.
pub(in crate::buffer) fn file_of(generation: u64) -> u32 {
    let [a, b, c, ..] = generation.to_le_bytes();
    u32::from_le_bytes([a, b, c, 0])
}

/// Whether two generations are of the WAL of one buffer file.
pub(in crate::buffer) fn is_of_same_file(one: u64, other: u64) -> bool {
    (one ^ other).trailing_zeros() >= 24
}

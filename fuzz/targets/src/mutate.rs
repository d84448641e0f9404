//! Inputs from inputs: small damage of every usual kind, from one seed of randomness, so that a finding can be had again.

/// xorshift64*: enough for this, and the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }
}

/// Longest input.
const BYTES_MAX: usize = 64 << 10;
/// What parsers stumble over.
const WORDS: [&[u8]; 28] = [
    b"..",
    b"/",
    b"../",
    b"\0",
    b"\n",
    b"\r\n",
    b"\x1b[",
    b"\x1b[31m",
    b"\xff",
    b"\xc3\x28",
    b"\xef\xbb\xbf",
    b"0",
    b"-1",
    b"4294967295",
    b"65536",
    b"18446744073709551616",
    b"1e999",
    b"null",
    b"\"",
    b"{}",
    b"[",
    b"]",
    b"=",
    b":",
    b"%2e%2e",
    b"\xe2\x80\xae",
    b".wh.",
    b".overlay.",
];
const BYTES: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, b' ', b'/', b'9'];

/// A damaged copy of one of them, sometimes with a part of another.
pub fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut input = seeds.get(random.below(seeds.len())).cloned().unwrap_or_default();
    // One in sixteen is noise.
    if random.below(16) == 0 {
        input = (0..random.below(600)).map(|_| random.next() as u8).collect();
    }
    for _ in 0..1 + random.below(6) {
        damage(&mut input, seeds, random);
    }
    input.truncate(BYTES_MAX);
    input
}

fn damage(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let length = random.below(input.len() - at + 1).min(1 + random.below(200));
    match random.below(9) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = BYTES[random.below(BYTES.len())],
        2 => insert(input, at, WORDS[random.below(WORDS.len())]),
        3 => drop(input.drain(at..at + length)),
        4 => {
            let part = input[at..at + length].to_vec();
            let to = random.below(input.len() + 1);
            insert(input, to, &part);
        }
        5 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len() + 1);
            let part = other[from..].to_vec();
            input.truncate(at);
            input.extend(part);
        }
        6 => input.truncate(at),
        // Repeated: depth and length.
        7 if length > 0 => {
            let part = input[at..at + length.min(16)].repeat(1 + random.below(300));
            insert(input, at, &part);
        }
        _ => {
            let word = WORDS[random.below(WORDS.len())];
            let end = (at + word.len()).min(input.len());
            input[at..end].copy_from_slice(&word[..end - at]);
        }
    }
}

fn insert(input: &mut Vec<u8>, at: usize, part: &[u8]) {
    drop(input.splice(at..at, part.iter().copied()));
}

//! Ids that stand for content: SipHash-2-4 (Aumasson and Bernstein, 2012) with fixed keys over a canonical form, so that
//! they are the same on every machine and after every restart. [`ContentHasher`] is the one entry point.
//!
//! Two contents of one id are told apart by whoever keeps them, who then asks for the next [`ContentHasher::id`].

/// Collects a canonical form. Every part carries its length or has a fixed one, so that no two contents look alike.
#[derive(Clone, Debug, Default)]
pub(crate) struct ContentHasher {
    bytes: Vec<u8>,
}

impl ContentHasher {
    /// `domain` keeps kinds of content apart.
    pub(crate) fn new(domain: &str) -> Self {
        let mut hasher = Self::default();
        hasher.text(domain);
        hasher
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// The id for the given attempt, never 0.
    fn id(&self, attempt: u64) -> u64 {
        siphash(0x736c_7569_6365_0001, attempt, &self.bytes).max(1)
    }

    /// The first id that other content doesn't have.
    pub(crate) fn first_id(&self, other_content_has: impl Fn(u64) -> bool) -> u64 {
        let mut attempt = 0;
        loop {
            let id = self.id(attempt);
            if !other_content_has(id) {
                return id;
            }
            attempt += 1;
        }
    }
}

fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

fn siphash(key0: u64, key1: u64, bytes: &[u8]) -> u64 {
    let mut v = [
        key0 ^ 0x736f_6d65_7073_6575,
        key1 ^ 0x646f_7261_6e64_6f6d,
        key0 ^ 0x6c79_6765_6e65_7261,
        key1 ^ 0x7465_6462_7974_6573,
    ];
    let mut absorb = |word: u64| {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    };
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        absorb(u64::from_le_bytes(chunk.try_into().expect("chunks of eight")));
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    absorb(u64::from_le_bytes(last) | (bytes.len() as u64) << 56);
    v[2] ^= 0xff;
    for _ in 0..4 {
        round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_published_function() {
        // the vectors of the reference implementation: key 00..0f, messages 00..(n-1)
        let message: Vec<u8> = (0..15).collect();
        let (key0, key1) = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(siphash(key0, key1, &message[..0]), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash(key0, key1, &message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn steps_aside_for_other_content() {
        let mut hasher = ContentHasher::new("test");
        hasher.text("a");
        let first = hasher.first_id(|_| false);
        let second = hasher.first_id(|id| id == first);
        assert_ne!(first, second);
        assert_eq!(second, hasher.first_id(|id| id == first));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let id = |parts: &[&str]| {
            let mut hasher = ContentHasher::new("test");
            parts.iter().for_each(|part| hasher.text(part));
            hasher.first_id(|_| false)
        };
        assert_ne!(id(&["ab", "c"]), id(&["a", "bc"]));
    }
}

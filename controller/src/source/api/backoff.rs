//! How long to wait before something is tried again: longer each time, and never the same for two agents.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// Doubles from `first` to `most`, less up to half of it.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The wait before the next try.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.most);
        jittered(wait)
    }

    /// It worked.
    pub(super) const fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Between half of `whole` and all of it. The standard library seeds its hashers at random, which is all the chance that
/// is needed here.
pub(crate) fn jittered(whole: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8);
    let thousandths = u32::try_from(random % 501).expect("a remainder of 501 is less than 2^32");
    whole * (500 + thousandths) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_a_limit_and_starts_again() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        for whole in [1, 2, 4, 5, 5] {
            let wait = backoff.wait();
            assert!(wait >= seconds(whole) / 2 && wait <= seconds(whole), "{wait:?} of {whole} s");
        }
        backoff.reset();
        assert!(backoff.wait() <= seconds(1));
    }

    #[test]
    fn two_agents_do_not_wait_alike() {
        let waits: std::collections::BTreeSet<_> = (0..64).map(|_| jittered(Duration::from_secs(1))).collect();
        assert!(waits.len() > 8, "{waits:?}");
    }
}

//! Points in time that this process, other processes and the kernel's time stamps of packets agree on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time of the clock that the kernel stamps packets with (`CLOCK_REALTIME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// After the beginning of 1970.
    #[must_use]
    pub const fn after_epoch(time: Duration) -> Self {
        Self(time)
    }

    /// This much earlier.
    #[must_use]
    pub const fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }

    /// The time since another moment; nothing, if this one is earlier.
    #[must_use]
    pub const fn since(self, other: Self) -> Duration {
        self.0.saturating_sub(other.0)
    }
}

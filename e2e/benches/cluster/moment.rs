//! Points in time that this process, other processes and the kernel's time stamps of packets agree on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A time of the clock that the kernel stamps packets with (`CLOCK_REALTIME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Duration);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// After the beginning of 1970.
    pub(crate) const fn after_epoch(time: Duration) -> Self {
        Self(time)
    }

    /// This much earlier.
    pub(crate) const fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }

    /// The time since another moment; nothing, if this one is earlier.
    pub(crate) const fn since(self, other: Self) -> Duration {
        self.0.saturating_sub(other.0)
    }
}

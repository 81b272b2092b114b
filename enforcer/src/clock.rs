//! The kernel's clock as the program sees it: how many jiffies make a second, and which jiffy it is. Entry point:
//! [`Clock::measure`].

use std::{io, time::Duration};

use aya::{TestRun as _, TestRunOptions, programs::ProgramError};
use enforcer_abi::map;
use thiserror::Error;

use crate::object::{self, LoadError, MAPS, MapPlan};

/// Why the clock could not be read.
#[derive(Debug, Error)]
pub enum ClockError {
    /// The clock program could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel did not run the clock program.
    #[error("the kernel did not run the clock program (BPF_PROG_TEST_RUN)")]
    Run(#[source] ProgramError),
    /// The kernel ticks in none of the usual ways.
    #[error("{jiffies} jiffies in {nanoseconds} ns are no multiple that Linux is built with (100, 250, 300, 1000)")]
    Unknown {
        /// Jiffies that went by.
        jiffies: u64,
        /// In this time.
        nanoseconds: u64,
    },
    /// The system's monotonic clock could not be read.
    #[error("the monotonic clock could not be read")]
    Monotonic(#[source] io::Error),
}

/// The kernel's tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    hz: u64,
    at: Reading,
}

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reading {
    /// `bpf_jiffies64`
    jiffies: u64,
    /// `bpf_ktime_get_ns`
    nanoseconds: u64,
}

/// All that `CONFIG_HZ` can be on amd64 and arm64.
const USUAL: [u64; 4] = [100, 250, 300, 1000];

impl Clock {
    /// Runs the clock program of the object that this build carries.
    pub fn measure() -> Result<Self, ClockError> {
        Self::measure_with(crate::OBJECT)
    }

    /// The same for another object.
    pub fn measure_with(object: &[u8]) -> Result<Self, ClockError> {
        // The object's maps come along, as small as they can be.
        let plan = MAPS.map(|spec| MapPlan { name: spec.name, pin: None, entries: 1 });
        let mut ebpf = object::prepare(object, None, &plan)?;
        let program = object::load_program(&mut ebpf, map::CLOCK)?;
        let read = || -> Result<Reading, ClockError> {
            let input = [0u8; 64];
            let mut output = [0u8; 64];
            let options =
                TestRunOptions { data_in: Some(&input), data_out: Some(&mut output), ..TestRunOptions::new() };
            program.test_run(options).map_err(ClockError::Run)?;
            let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| output[at + i]));
            Ok(Reading { jiffies: word(0), nanoseconds: word(8) })
        };
        let first = read()?;
        if let Some(hz) = hz_since_boot(first) {
            return Ok(Self { hz, at: first });
        }
        // Around 300 s after boot all candidates look alike; then the rate itself is measured.
        const LONG_ENOUGH: u64 = 100_000_000;
        loop {
            let last = read()?;
            if last.nanoseconds - first.nanoseconds >= LONG_ENOUGH {
                let hz = hz_between(first, last)?;
                return Ok(Self { hz, at: last });
            }
        }
    }

    /// Jiffies in a second.
    #[must_use]
    pub fn hz(&self) -> u64 {
        self.hz
    }

    /// A duration in jiffies, rounded up.
    #[must_use]
    pub fn jiffies(&self, duration: Duration) -> u64 {
        let jiffies = (duration.as_nanos() * u128::from(self.hz)).div_ceil(1_000_000_000);
        u64::try_from(jiffies).unwrap_or(u64::MAX)
    }

    /// `bpf_jiffies64` now, within a jiffy or two.
    pub fn now(&self) -> Result<u64, ClockError> {
        let passed = monotonic()?.saturating_sub(Duration::from_nanos(self.at.nanoseconds));
        Ok(self.at.jiffies + self.jiffies(passed))
    }

    /// How long ago a jiffy was whose lower 32 bits were stored. Wrong after 2^32 jiffies: 49 days at 1000 a second.
    pub fn age(&self, stored: u32) -> Result<Duration, ClockError> {
        let low = u32::try_from(self.now()? & u64::from(u32::MAX)).expect("masked to 32 bits");
        let ago = low.wrapping_sub(stored);
        // A stamp from the jiffy that has just begun.
        let ago = if ago > u32::MAX / 2 { 0 } else { ago };
        Ok(Duration::from_nanos(u64::from(ago) * 1_000_000_000 / self.hz))
    }
}

/// `CLOCK_MONOTONIC`, which is what `bpf_ktime_get_ns` reads.
pub fn monotonic() -> Result<Duration, ClockError> {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .map_err(|error| ClockError::Monotonic(error.into()))
}

/// Jiffies begin at `(u32)(-300 * HZ)` (`INITIAL_JIFFIES` in include/linux/jiffies.h), so one reading is enough: of the
/// candidates, the one whose count since then takes as long as the machine is up. `None` if not exactly one does.
fn hz_since_boot(reading: Reading) -> Option<u64> {
    let uptime = reading.nanoseconds as f64 / 1e9;
    // The tick begins a moment after the clock, and the clock is slewed by up to 500 ppm.
    let tolerance = 1.0 + uptime * 0.001;
    let mut matching = USUAL.into_iter().filter(|&hz| {
        let initial = (1u64 << 32) - 300 * hz;
        let ticks = reading.jiffies.wrapping_sub(initial).cast_signed();
        (ticks as f64 / hz as f64 - uptime).abs() < tolerance
    });
    match (matching.next(), matching.next()) {
        (Some(hz), None) => Some(hz),
        _ => None,
    }
}

fn hz_between(first: Reading, last: Reading) -> Result<u64, ClockError> {
    let jiffies = last.jiffies.wrapping_sub(first.jiffies);
    let nanoseconds = last.nanoseconds - first.nanoseconds;
    let rate = jiffies as f64 * 1e9 / nanoseconds as f64;
    // Two neighbours differ by a sixth at least; a tenth of a second tells them apart to within a tick at each end.
    let slack = 2e9 / nanoseconds as f64;
    USUAL
        .into_iter()
        .filter(|&hz| (rate - hz as f64).abs() <= slack + hz as f64 * 0.01)
        .min_by(|&a, &b| (rate - a as f64).abs().total_cmp(&(rate - b as f64).abs()))
        .ok_or(ClockError::Unknown { jiffies, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(hz: u64, seconds: f64) -> Reading {
        let initial = (1u64 << 32) - 300 * hz;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small positive test values")]
        let (ticks, nanoseconds) = ((seconds * hz as f64) as u64, (seconds * 1e9) as u64);
        Reading { jiffies: initial + ticks, nanoseconds }
    }

    #[test]
    fn one_reading_tells_the_tick_at_any_uptime_but_around_300_seconds() {
        for hz in USUAL {
            for uptime in [20.0, 120.0, 280.0, 320.0, 5000.0, 1e6, 3e8] {
                assert_eq!(hz_since_boot(reading(hz, uptime)), Some(hz), "{hz} at {uptime} s");
            }
            assert_eq!(hz_since_boot(reading(hz, 300.0)), None, "{hz}");
        }
    }

    #[test]
    fn two_readings_tell_it_there() {
        for hz in USUAL {
            for late in [0.0, 0.001, 0.0039] {
                assert_eq!(hz_between(reading(hz, 300.0), reading(hz, 300.1 + late)).unwrap(), hz);
            }
        }
    }
}

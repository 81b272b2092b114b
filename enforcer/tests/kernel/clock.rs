//! The tick, as the kernel itself counts it.

use std::time::Duration;

use enforcer::Clock;

use crate::{Test, support::on_node};

pub(crate) const TESTS: &[Test] = &tests![the_tick_and_the_time_are_the_kernels,];

fn the_tick_and_the_time_are_the_kernels() {
    on_node(|_| {
        let first = Clock::measure().unwrap();
        assert!([100, 250, 300, 1000].contains(&first.hz()), "{}", first.hz());
        assert_eq!(first.jiffies(Duration::from_secs(3)), 3 * first.hz());
        // Another reading of the kernel's own counter agrees with what the first one extrapolates.
        let second = Clock::measure().unwrap();
        let (a, b) = (first.now().unwrap(), second.now().unwrap());
        assert!(a.abs_diff(b) <= 2, "{a} and {b}");
        let stamp = u32::try_from(a & 0xffff_ffff).unwrap();
        assert!(first.age(stamp).unwrap() < Duration::from_secs(1));
    });
}

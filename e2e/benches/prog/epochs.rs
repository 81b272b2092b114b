//! What a raised epoch costs established flows, each of which is judged again by its next packet. Entry point:
//! [`raised`].

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};
use e2e::packets::program::Program;

use crate::bare::{Bare, Contender, Effort};

/// So often each rate has its turn.
const ROUNDS: u32 = 5;
/// How long a turn is: long enough for some epochs.
const TURN: Duration = Duration::from_millis(500);
/// Repetitions of a run, short against the time between two epochs.
const EFFORT: Effort = Effort { runs: 1, repeat: 20_000 };

/// The shortest of each rate's mean times in nanoseconds, driver included, while the epoch is raised so many times a
/// second.
pub(crate) fn raised(
    bare: &mut Bare,
    program: &mut Program,
    contender: &Contender<'_>,
    rates: &[u32],
) -> Result<Vec<f64>> {
    let contender = Contender { program: contender.program.try_clone()?, effort: EFFORT, ..*contender };
    let mut shortest = vec![f64::MAX; rates.len()];
    for _ in 0..ROUNDS {
        for (rate, shortest) in rates.iter().zip(&mut shortest) {
            *shortest = shortest.min(turn(bare, program, &contender, *rate)?);
        }
    }
    Ok(shortest)
}

fn turn(bare: &mut Bare, program: &mut Program, contender: &Contender<'_>, rate: u32) -> Result<f64> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let raiser = scope.spawn(|| {
            while rate > 0 && !over.load(Ordering::Relaxed) {
                program.raise_epoch()?;
                // whoever ends the turn ends the pause, too
                thread::park_timeout(Duration::from_secs(1) / rate);
            }
            anyhow::Ok(())
        });
        let mean = bare.mean(contender, TURN);
        over.store(true, Ordering::Relaxed);
        raiser.thread().unpark();
        raiser.join().map_err(|_| anyhow!("the thread that raises the epoch panicked"))??;
        mean
    })
}

//! What raised epochs cost established flows. Each raise concerns the flows of one pod, which are judged again by their
//! next packets. All packets here are of one of the node's pods, and the pods take turns. Entry point: [`raised`].

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};
use e2e::packets::program::Program;

use crate::bare::{Bare, Contender, Effort};

/// The pods of a node (kubelet's default of `maxPods`).
pub(crate) const PODS: u32 = 110;

/// So often each rate has its turn.
const ROUNDS: u32 = 3;
/// Repetitions of a run, short against the time between two epochs.
const EFFORT: Effort = Effort { runs: 1, repeat: 20_000 };

/// The shortest of each rate's mean times in nanoseconds, driver included, while epochs are raised so many times a
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
    // every pod has its epoch raised once, ours in the middle
    let length = Duration::from_secs(PODS.into()) / if rate == 0 { 100 } else { rate };
    let own = contender.context.ifindex;
    thread::scope(|scope| {
        let raiser = scope.spawn(|| {
            for pod in (own - PODS / 2..).take_while(|_| rate > 0 && !over.load(Ordering::Relaxed)) {
                program.raise_epoch(pod)?;
                // whoever ends the turn ends the pause, too
                thread::park_timeout(Duration::from_secs(1) / rate);
            }
            anyhow::Ok(())
        });
        let mean = bare.mean(contender, length);
        over.store(true, Ordering::Relaxed);
        raiser.thread().unpark();
        raiser.join().map_err(|_| anyhow!("the thread that raises the epoch panicked"))??;
        mean
    })
}

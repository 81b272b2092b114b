//! Waiting for a condition that can only be asked for again and again.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Asks every `pause` until there is an answer.
///
/// # Errors
/// What the question fails with, or `otherwise`, if there is no answer after `patience`.
pub fn until<T>(
    patience: Duration,
    pause: Duration,
    otherwise: impl FnOnce() -> String,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        // The time is taken before the question: a condition that came about while it was asked late still counts.
        let late = Instant::now() > deadline;
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if late {
            bail!(otherwise());
        }
        thread::sleep(pause);
    }
}

/// Tries every `pause` until it succeeds.
///
/// # Errors
/// What the last attempt failed with, if none has succeeded after `patience`.
pub fn retry<T>(patience: Duration, pause: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let late = Instant::now() > deadline;
        match attempt() {
            Err(_) if !late => thread::sleep(pause),
            result => return result,
        }
    }
}

/// Whether a condition comes about; asked every `pause` for as long as `patience`.
pub fn holds(patience: Duration, pause: Duration, condition: impl Fn() -> bool) -> bool {
    until(patience, pause, String::new, || Ok(condition().then_some(()))).is_ok()
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn asks_until_there_is_an_answer() {
        let mut left = 3;
        let count = || {
            left -= 1;
            Ok((left == 0).then_some("there"))
        };
        let answer = until(Duration::from_secs(60), Duration::ZERO, String::new, count);
        assert_eq!(answer.expect("it comes"), "there");
    }

    #[test]
    fn tries_until_it_succeeds() {
        let mut left = 3;
        let attempt = || {
            left -= 1;
            ensure!(left == 0, "{left} attempts left");
            Ok("done")
        };
        assert_eq!(retry(Duration::from_secs(60), Duration::ZERO, attempt).expect("the third does"), "done");
        let error = retry::<()>(Duration::ZERO, Duration::ZERO, || bail!("broken"));
        assert_eq!(error.expect_err("it never does").to_string(), "broken");
    }

    #[test]
    fn gives_up() {
        let answer: Result<()> = until(Duration::ZERO, Duration::ZERO, || "nothing came".to_owned(), || Ok(None));
        assert_eq!(answer.expect_err("nothing comes").to_string(), "nothing came");
        let error = until::<()>(Duration::from_secs(60), Duration::ZERO, String::new, || bail!("broken"));
        assert_eq!(error.expect_err("it can't be asked").to_string(), "broken");
        assert!(!holds(Duration::ZERO, Duration::ZERO, || false));
        assert!(holds(Duration::ZERO, Duration::ZERO, || true));
    }
}

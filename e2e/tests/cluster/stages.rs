//! The cluster that tests share: brought up for the first that wants one like it, and removed for the first that wants
//! another.

use std::{
    env,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, bail};
use e2e::lab::{Lab, Settings, sluice::Installation};

/// The variable that names the cluster of `cargo xtask lab up` instead, whatever it is like, so that a test can be tried
/// again and again.
const KEPT: &str = "SLUICE_KEPT_LAB";

/// Whether there is only the cluster of `cargo xtask lab up`.
pub(crate) fn are_given() -> bool {
    env::var_os(KEPT).is_some()
}

/// What a cluster is to be like, apart from its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Without Sluice.
    Bare,
    /// With Sluice, and every pod enforced.
    Enforcing,
    /// As [`Self::Enforcing`] before the test, which leaves it as [`Self::Bare`].
    Removing,
}

/// At most one cluster at a time.
#[derive(Default)]
pub(crate) struct Stages(Mutex<Option<Stage>>);

struct Stage {
    settings: Settings,
    /// `None` if it did not come up, which is not tried again.
    lab: Option<Lab>,
    state: State,
}

impl Stages {
    /// Runs `work` on a cluster that is as wanted.
    pub(crate) fn run(&self, settings: &Settings, state: State, work: fn(&Lab) -> Result<()>) -> Result<()> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|stage| stage.settings != *settings) {
            remove(current.take())?;
            *current = Some(Stage { settings: settings.clone(), lab: None, state: State::Bare });
            let lab = bring_up(settings)?;
            *current = Some(Stage { settings: settings.clone(), lab: Some(lab), state: State::Bare });
        }
        let Some(Stage { lab: Some(lab), state: is, .. }) = current.as_mut() else {
            bail!("the cluster did not come up for an earlier test");
        };
        match (*is, state) {
            (State::Bare, State::Enforcing | State::Removing) => {
                lab.install_sluice().context("Sluice can't be installed")?;
                *is = State::Enforcing;
            }
            (State::Enforcing, State::Bare) => {
                lab.cluster().uninstall_sluice(Installation::Agents).context("Sluice can't be removed")?;
                *is = State::Bare;
            }
            _ => {}
        }
        work(lab)?;
        if state == State::Removing {
            *is = State::Bare;
        }
        Ok(())
    }

    /// Removes the cluster, if there is one.
    pub(crate) fn down(&self) -> Result<()> {
        remove(self.0.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

fn bring_up(settings: &Settings) -> Result<Lab> {
    if are_given() {
        return Lab::kept()?.context("there is no lab: `cargo xtask lab up` brings one up");
    }
    Lab::up(settings)
}

fn remove(stage: Option<Stage>) -> Result<()> {
    match stage {
        Some(Stage { lab: Some(lab), .. }) if !are_given() => lab.down(),
        _ => Ok(()),
    }
}

//! Loaded programs that test after test uses: the verifier takes its time. Entry point: [`lease`].

use std::{
    ops::{Deref, DerefMut},
    sync::Mutex,
};

use anyhow::Result;
use enforcer_abi::Settings;

use super::program::{Program, Sizes};

/// Programs that nobody uses just now, with what they were loaded with.
static IDLE: Mutex<Vec<(Sizes, Program)>> = Mutex::new(Vec::new());

/// A program with empty maps, in use by one test. It goes back when dropped.
pub struct Lease {
    sizes: Sizes,
    program: Option<Program>,
}

/// A program loaded with these settings and sizes, its maps as after loading.
///
/// # Errors
/// As [`Program::load`] and [`Program::reset`].
pub fn lease(settings: Settings, sizes: Sizes) -> Result<Lease> {
    let idle = {
        let mut all = IDLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = all.iter().position(|(with, program)| *with == sizes && *program.settings() == settings);
        found.map(|at| all.swap_remove(at).1)
    };
    let program = match idle {
        Some(mut program) => {
            program.reset()?;
            program
        }
        None => Program::load(settings, &sizes)?,
    };
    Ok(Lease { sizes, program: Some(program) })
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(program) = self.program.take() {
            let mut all = IDLE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.push((std::mem::take(&mut self.sizes), program));
        }
    }
}

impl Deref for Lease {
    type Target = Program;

    fn deref(&self) -> &Program {
        self.program.as_ref().expect("it is taken out only when the lease ends")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Program {
        self.program.as_mut().expect("it is taken out only when the lease ends")
    }
}

//! The read-only global that the loader fills in before the verifier sees the program.

use enforcer_abi::Settings;

/// Overridden by the loader under the name `enforcer_abi::map::SETTINGS`; these are for a kernel of 250 Hz. Read it by
/// [`setting!`] only.
#[unsafe(no_mangle)]
pub(crate) static SETTINGS: Settings = Settings::defaults(250);

/// Reads one field. Volatile, because the compiler would fold the initial value; the verifier folds the loader's.
macro_rules! setting {
    ($($field:ident).+) => {
        // SAFETY: a field of a static: valid, aligned, initialised.
        unsafe { core::ptr::read_volatile(&raw const $crate::settings::SETTINGS.$($field).+) }
    };
}
pub(crate) use setting;

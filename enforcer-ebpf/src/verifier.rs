//! Keeping the verifier's work small: [`opaque`] hides a value from the compiler, [`forget`] from the verifier.
//!
//! The verifier walks every path and drops one only if it has been in an equal state before. A value that it knows
//! makes states unequal, once a branch depends on it. Without these two: "BPF program is too large. Processed 1000001
//! insn" (6.18).

use core::{arch::asm, ptr};

/// The same value, of which the compiler knows nothing any more.
#[inline(always)]
pub(crate) fn opaque(mut value: u64) -> u64 {
    // A move to itself, because a template without an instruction leaves two lines of debug information at one place:
    // "Invalid line_info[101].insn_off:207 (prev_offset:207 prog->len:4136)".
    // SAFETY: only a register.
    unsafe { asm!("{value} = {value}", value = inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

/// [`opaque`] for 32 bits.
#[inline(always)]
pub(crate) fn opaque_u32(value: u32) -> u32 {
    low(opaque(u64::from(value)))
}

/// The lower half.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
pub(crate) fn low(value: u64) -> u32 {
    value as u32
}

/// The same value, of which the verifier knows nothing any more, given one that it doesn't know. Not `pure`: the compiler
/// would do it only where the value is needed.
#[inline(always)]
pub(crate) fn forget(mut value: u64, unknown: u64) -> u64 {
    // SAFETY: only registers.
    unsafe {
        asm!("{value} ^= {unknown}", "{value} ^= {unknown}", value = inout(reg) value, unknown = in(reg) unknown,
            options(nomem, nostack, preserves_flags));
    }
    value
}

/// [`forget`] for a small enum or integer.
#[inline(always)]
pub(crate) fn forget_small<T: Small>(value: T, unknown: u64) -> T {
    let byte = forget(u64::from(value.to_byte()), unknown);
    // SAFETY: it is the byte of the value.
    unsafe { T::from_byte((byte & 0xff) as u8) }
}

/// [`opaque`] for a small enum or integer.
#[inline(always)]
pub(crate) fn opaque_small<T: Small>(value: T) -> T {
    let byte = opaque(u64::from(value.to_byte()));
    // SAFETY: it is the byte of the value.
    unsafe { T::from_byte((byte & 0xff) as u8) }
}

/// Types of one byte.
///
/// # Safety
/// `size_of::<Self>() == 1`, without padding.
pub(crate) unsafe trait Small: Copy {
    #[inline(always)]
    fn to_byte(self) -> u8 {
        // SAFETY: one byte, as the trait says.
        unsafe { ptr::from_ref(&self).cast::<u8>().read() }
    }

    /// # Safety
    /// `byte` is what [`Small::to_byte`] gave.
    #[inline(always)]
    unsafe fn from_byte(byte: u8) -> Self {
        // SAFETY: as the caller says.
        unsafe { ptr::from_ref(&byte).cast::<Self>().read() }
    }
}

// SAFETY: one byte.
unsafe impl Small for bool {}
// SAFETY: one byte.
unsafe impl Small for u8 {}
// SAFETY: `repr(u8)`.
unsafe impl Small for enforcer_abi::Reason {}
// SAFETY: `repr(u8)`.
unsafe impl Small for enforcer_abi::Direction {}

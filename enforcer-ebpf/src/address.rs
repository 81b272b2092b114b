//! Addresses as the program compares them: by words, one branch each.

use enforcer_abi::Address;

use crate::verifier::{opaque, opaque_u32};

/// The third word of an IPv4-mapped address, in memory order.
const MAPPED: u32 = 0x0000_ffff_u32.to_be();

/// The four words of an address, in memory order.
#[inline(always)]
pub(crate) fn words(address: &Address) -> [u32; 4] {
    // SAFETY: `Address` is 16 bytes, aligned to 4.
    unsafe { core::ptr::from_ref(address).cast::<[u32; 4]>().read() }
}

/// An address from its words in memory order.
#[inline(always)]
pub(crate) fn from_words(words: [u32; 4]) -> Address {
    // SAFETY: `Address` is 16 bytes, any of which are one.
    unsafe { core::mem::transmute::<[u32; 4], Address>(words) }
}

/// The mapped form of an IPv4 address in network order.
#[inline(always)]
pub(crate) fn mapped(v4: u32) -> Address {
    from_words([0, 0, MAPPED, v4])
}

/// [`Address::is_v4`], by words.
#[inline(always)]
pub(crate) fn is_v4(address: &Address) -> bool {
    is_mapped(words(address))
}

/// Whether these words are a mapped IPv4 address.
#[inline(always)]
pub(crate) fn is_mapped(words: [u32; 4]) -> bool {
    opaque(u64::from(words[0] | words[1] | (words[2] ^ MAPPED))) == 0
}

/// [`Address::node_port`], by words.
#[inline(always)]
pub(crate) fn node_port(address: &Address) -> Address {
    let zero = opaque_u32(0);
    from_words([zero, zero, if is_v4(address) { MAPPED } else { zero }, zero])
}

/// Whether two addresses are one. `==` on bytes would call `memcmp`, which BPF has not.
#[inline(always)]
pub(crate) fn same(one: &Address, other: &Address) -> bool {
    same_words(words(one), words(other))
}

/// Whether the address that a map value carries is `expected`.
///
/// # Safety
/// `carried` points into a map value that a look-up has just returned.
#[inline(always)]
pub(crate) unsafe fn is_still(carried: *const Address, expected: &Address) -> bool {
    // SAFETY: as the caller says; volatile, so that it comes after the reads before it.
    same_words(unsafe { core::ptr::read_volatile(carried.cast::<[u32; 4]>()) }, words(expected))
}

/// One branch instead of the four that the compiler would make of it.
#[inline(always)]
fn same_words(a: [u32; 4], b: [u32; 4]) -> bool {
    opaque(u64::from((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]))) == 0
}

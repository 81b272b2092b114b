//! The bytes of a packet: directly where the linear part reaches, copied by the kernel where it doesn't.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes, programs::TcContext};

/// A type that any bytes of a packet make a value of.
///
/// # Safety
/// `repr(C)`, integers and arrays of integers only, no padding, alignment at most 4.
pub(crate) unsafe trait Wire: Copy {}

/// The length of a header.
#[expect(clippy::cast_possible_truncation, reason = "headers are short")]
pub(crate) const fn size<T: Wire>() -> u32 {
    size_of::<T>() as u32
}

/// Room for the copy of any header.
pub(crate) struct Room(MaybeUninit<[u32; 10]>);

impl Room {
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }
}

/// The packet behind a context.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Frame {
    skb: *mut __sk_buff,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self { skb: context.skb.skb }
    }

    /// Bytes, the Ethernet header included, the paged part too.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).len }
    }

    /// The interface whose hook this is.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ifindex }
    }

    /// The interface by which it came to this machine, 0 if it was made here.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ingress_ifindex }
    }

    /// The header at `offset`, which is less than 64 kB: in the packet, or in `room`, where the kernel has copied it.
    /// One pointer for both, so that what follows is compiled once.
    #[inline(always)]
    pub(crate) fn header<T: Wire>(self, offset: u32, room: &mut Room) -> Option<&T> {
        // SAFETY: as above.
        let (data, data_end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        let start = data + offset as usize;
        if start + size_of::<T>() <= data_end {
            // SAFETY: within the linear part, as the verifier checks again. Headers lie at multiples of 4 from the end
            // of the Ethernet header; how aligned that is depends on the driver. Where the machine minds, the verifier
            // counts with NET_IP_ALIGN and refuses what would trap.
            return Some(unsafe { &*(start as *const T) });
        }
        self.copied(offset, room)
    }

    /// The same, by the kernel's copy alone, for what is rare.
    #[inline(always)]
    pub(crate) fn copied<T: Wire>(self, offset: u32, room: &mut Room) -> Option<&T> {
        const { assert!(size_of::<T>() <= size_of::<Room>() && align_of::<T>() <= align_of::<Room>()) };
        let room = room.0.as_mut_ptr();
        // SAFETY: the helper writes `size_of::<T>()` bytes, which fit, or fails.
        let result = unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, room.cast(), const { size::<T>() }) };
        // SAFETY: all of it was written, and any bytes are a `T`.
        if result == 0 { Some(unsafe { &*room.cast::<T>() }) } else { None }
    }
}

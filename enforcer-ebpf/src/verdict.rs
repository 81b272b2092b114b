//! What becomes of a packet: the one place that knows the kernel's numbers for it.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};

/// The end of every judgement. Only the entry points turn it into the kernel's number.
#[must_use = "a discarded verdict is a packet let through"]
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Verdict {
    /// The next program of the chain decides; `TCX_NEXT` has the same number.
    Pass,
    /// The chain ends here.
    Drop,
}

impl From<Verdict> for i32 {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => TC_ACT_UNSPEC,
            Verdict::Drop => TC_ACT_SHOT,
        }
    }
}

//! The two ends of a flow, as the pod sees them: [`Ends`].

use enforcer_abi::{Address, Direction, FlowKey};

use crate::verifier::opaque;

/// A flow's key and the pod's own address.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ends {
    pub(crate) key: FlowKey,
    pub(crate) pod: Address,
}

impl Ends {
    /// Without addresses and ports. The zeros are hidden from the compiler, which would call `memset` for them: aya's
    /// loop over bytes, which costs more than a look-up.
    #[inline(always)]
    pub(crate) fn new(ifindex: u32) -> Self {
        let zero = opaque(0) as u32;
        // SAFETY: eleven words are as many bytes as the ends have, without padding; all are integers.
        unsafe {
            core::mem::transmute::<[u32; 11], Self>([zero, zero, zero, zero, ifindex, zero, zero, zero, zero, zero, zero])
        }
    }

    /// Writes the addresses of a packet that goes in `direction`.
    #[inline(always)]
    pub(crate) fn set_addresses(&mut self, direction: Direction, source: Address, destination: Address) {
        match direction {
            Direction::Ingress => {
                self.key.remote = source;
                self.pod = destination;
            }
            Direction::Egress => {
                self.key.remote = destination;
                self.pod = source;
            }
        }
    }

    /// Writes the ports of a packet that goes in `direction`.
    #[inline(always)]
    pub(crate) fn set_ports(&mut self, direction: Direction, source: u16, destination: u16) {
        (self.key.remote_port, self.key.pod_port) = match direction {
            Direction::Ingress => (source, destination),
            Direction::Egress => (destination, source),
        };
    }
}

const _: () = assert!(size_of::<Ends>() == 44);

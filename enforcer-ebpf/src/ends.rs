//! The two ends of a flow, as the pod sees them: [`Ends`].

use enforcer_abi::{Address, Direction, FlowKey};

/// A flow's key and the pod's own address.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Ends {
    pub(crate) key: FlowKey,
    pub(crate) pod: Address,
}

impl Ends {
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

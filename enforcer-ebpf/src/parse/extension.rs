//! The extension headers of IPv6: [`walk`], bounded.

use crate::{
    frame::{Frame, Room, Wire},
    packet::Fragment,
};

/// More than any sender puts in a packet: RFC 8200 section 4.1 names six.
const MAX_HEADERS: u32 = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// The first 8 bytes of any extension header; none is shorter.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    next_header: u8,
    /// In units of 8 bytes after the first 8; of 4 after the first 8 in an authentication header (RFC 4302).
    length: u8,
    /// Fragment: offset and flags. Routing: type and segments left.
    word: [u8; 2],
    identification: u32,
}

// SAFETY: integers, no padding.
unsafe impl Wire for Header {}

/// Where a walk starts, and then what it found.
#[repr(C)]
pub(crate) struct Extensions {
    /// Of the header named by `next_header`, in bytes from the Ethernet header.
    pub(crate) offset: u32,
    pub(crate) identification: u32,
    /// In units of 8 bytes.
    pub(crate) fragment_offset: u16,
    pub(crate) next_header: u8,
    /// What the fragment header names.
    pub(crate) fragment_protocol: u8,
    pub(crate) fragment: Fragment,
    pub(crate) has_fragment_header: bool,
}

impl Extensions {
    #[inline(always)]
    pub(crate) fn new(offset: u32, next_header: u8) -> Self {
        Self {
            offset,
            identification: 0,
            fragment_offset: 0,
            next_header,
            fragment_protocol: 0,
            fragment: Fragment::Whole,
            has_fragment_header: false,
        }
    }
}

/// Whether this is an extension header that another header follows. ESP (50) and 'no next header' (59) are protocols
/// without ports to us.
#[inline(always)]
pub(crate) fn is_one(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Follows the chain to the transport header, or to the fragment header of a later fragment. False if it is cut off,
/// too long, fragmented twice, or routed on from here, so that the destination isn't the one in the header.
#[inline(never)]
pub(crate) fn walk(frame: Frame, extensions: &mut Extensions, room: &mut Room) -> bool {
    for _ in 0..MAX_HEADERS {
        if !is_one(extensions.next_header) {
            return true;
        }
        let Some(header) = frame.copied::<Header>(extensions.offset, room) else { return false };
        let length = u32::from(header.length);
        extensions.offset += match extensions.next_header {
            FRAGMENT => {
                if extensions.has_fragment_header {
                    return false;
                }
                enter_fragment(extensions, header);
                if extensions.fragment as u8 == Fragment::Later as u8 {
                    extensions.next_header = header.next_header;
                    return true;
                }
                8
            }
            AUTHENTICATION => (length + 2) * 4,
            ROUTING if header.word[1] != 0 => return false,
            _ => (length + 1) * 8,
        };
        extensions.next_header = header.next_header;
    }
    !is_one(extensions.next_header)
}

/// RFC 8200 section 4.5
#[inline(always)]
fn enter_fragment(extensions: &mut Extensions, header: &Header) {
    let field = u16::from_be_bytes(header.word);
    let more = field & 1 != 0;
    extensions.has_fragment_header = true;
    extensions.fragment_protocol = header.next_header;
    extensions.fragment_offset = field >> 3;
    extensions.identification = u32::from_be(header.identification);
    extensions.fragment = match (field >> 3, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
}

//! Netfilter's netlink, as far as it tells which nftables tables and chains there are; those of iptables-nft are among
//! them. Entry point: [`names`].
//!
//! Messages are read by hand: of each, two attributes are wanted (include/uapi/linux/netfilter/nf_tables.h).

use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{NetlinkError, failed, messages};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of a message's type.
const NF_TABLES: u16 = 10 << 8;
/// `NFT_MSG_NEWTABLE` and `NFT_MSG_GETTABLE`
const TABLE: Dump = Dump { ask: NF_TABLES | 1, answer: NF_TABLES };
/// `NFT_MSG_NEWCHAIN` and `NFT_MSG_GETCHAIN`
const CHAIN: Dump = Dump { ask: NF_TABLES | 4, answer: NF_TABLES | 3 };
/// `NFTA_TABLE_NAME` and `NFTA_CHAIN_TABLE`
const TABLE_NAME: u16 = 1;
/// `NFTA_CHAIN_NAME`
const CHAIN_NAME: u16 = 3;

/// `struct nlmsghdr`, and with it `struct nfgenmsg`.
const HEADERS: (usize, usize) = (16, 20);
const SEQUENCE: u32 = 1;

/// A question about all of something, and the type of its answers.
#[derive(Clone, Copy)]
struct Dump {
    ask: u16,
    answer: u16,
}

/// Tells the names of all tables, then those of all chains with their tables', of every family, in this thread's
/// network namespace. What changes meanwhile may be told or not.
pub(crate) fn names(each: &mut dyn FnMut(&str, Option<&str>)) -> Result<(), NetlinkError> {
    let mut ask = || -> io::Result<()> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        for dump in [TABLE, CHAIN] {
            socket.send(&request(dump), 0)?;
            loop {
                let (datagram, _) = socket.recv_from_full()?;
                if collect(&datagram, dump, each)? {
                    break;
                }
            }
        }
        Ok(())
    };
    ask().map_err(failed("list the nftables chains"))
}

/// The headers alone: `AF_UNSPEC` is every family.
fn request(dump: Dump) -> Vec<u8> {
    const REQUEST_DUMP: u16 = 0x301;
    let mut bytes = Vec::with_capacity(HEADERS.1);
    bytes.extend(20u32.to_ne_bytes());
    bytes.extend(dump.ask.to_ne_bytes());
    bytes.extend(REQUEST_DUMP.to_ne_bytes());
    bytes.extend(SEQUENCE.to_ne_bytes());
    bytes.resize(HEADERS.1, 0);
    bytes
}

/// Reads one datagram and says whether it held the end of the answer.
fn collect(datagram: &[u8], dump: Dump, each: &mut dyn FnMut(&str, Option<&str>)) -> io::Result<bool> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    for message in messages(datagram) {
        let kind = u16_at(message, 4);
        // DONE may come without a code
        let code =
            message.get(HEADERS.0..).and_then(|rest| rest.first_chunk()).map_or(0, |code| i32::from_ne_bytes(*code));
        match kind {
            Some(ERROR | DONE) if code < 0 => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
            Some(ERROR | DONE) => return Ok(true),
            Some(kind) if kind == dump.answer => tell(message.get(HEADERS.1..).unwrap_or(&[]), dump, each),
            _ => {}
        }
    }
    Ok(false)
}

/// One table or chain by its attributes; one without a name that can be read is left out.
fn tell(attributes: &[u8], dump: Dump, each: &mut dyn FnMut(&str, Option<&str>)) {
    let (mut table, mut chain) = (None, None);
    for (kind, value) in self::attributes(attributes) {
        match kind {
            TABLE_NAME => table = text(value),
            CHAIN_NAME => chain = text(value),
            _ => {}
        }
    }
    match (dump.answer == CHAIN.answer, table, chain) {
        (false, Some(table), _) => each(table, None),
        (true, Some(table), Some(chain)) => each(table, Some(chain)),
        _ => {}
    }
}

/// `struct nlattr`: length, type, value; each aligned to 4 bytes.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const FLAGS: u16 = 0xc000;
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(rest, 0)?), u16_at(rest, 2)? & !FLAGS);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Up to the zero that ends it.
fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a kernel 6.12 on x86-64 answered where `nft` had made `table inet kindnet-network-policies` with a base chain
    /// and `iptables-nft`'s table `filter` with two more.
    const TABLES: &str = "\
        50000000000a0200010000006c3c0000010000061d0001006b696e646e65742d6e6574776f726b2d706f6c6963696573000000000800\
        0300000000010c000400000000000000000108000200000000003c000000000a0200010000006c3c0000020000060b00010066696c74\
        657200000800030000000002\
        0c00040000000000000000020800020000000000";
    const CHAINS: &str = "\
        88000000030a0200010000006c3c0000010000061d0001006b696e646e65742d6e6574776f726b2d706f6c6963696573000000001000\
        0300706f7374726f7574696e67000c0002000000000000000001140004000800010000000004080002000000000008000500000000010b\
        00070066696c746572000008000a0000000001080006000000000048000000030a0200010000006c3c0000020000060b00010066696c74\
        657200001100030063616c692d464f5257415244000000000c000200000000000000000108000600000000004c000000030a0200010000\
        006c3c0000020000060b00010066696c7465720000150003004b5542452d4e57504c43592d41424344000000000c0002000000000000\
        0000020800060000000000";
    const END: &str = "1400000003000200010000006c3c000000000000";

    fn bytes(hex: &str) -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn read(datagram: &[u8], dump: Dump) -> (io::Result<bool>, Vec<String>) {
        let mut names = Vec::new();
        let ended = collect(datagram, dump, &mut |table, chain| {
            names.push(format!("{table} {}", chain.unwrap_or("-")));
        });
        (ended, names)
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_recorded_answer_is_read() {
        let (ended, tables) = read(&bytes(TABLES), TABLE);
        assert_eq!((ended.unwrap(), tables), (false, vec!["kindnet-network-policies -".into(), "filter -".to_owned()]));
        let (ended, chains) = read(&bytes(CHAINS), CHAIN);
        assert!(!ended.unwrap());
        assert_eq!(chains, ["kindnet-network-policies postrouting", "filter cali-FORWARD", "filter KUBE-NWPLCY-ABCD"]);
        assert!(read(&bytes(END), CHAIN).0.unwrap());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn what_is_cut_off_is_left_out() {
        let whole = bytes(CHAINS);
        for length in 0..whole.len() {
            let (ended, names) = read(&whole[..length], CHAIN);
            assert!(!ended.unwrap() && names.len() <= 2, "{length}: {names:?}");
        }
        for (at, length) in [(0, 0), (0, 3), (20, 0), (20, 3), (20, 255)] {
            let mut odd = whole.clone();
            odd[at] = length;
            let (ended, names) = read(&odd, CHAIN);
            assert!(!ended.unwrap() && !names.contains(&"kindnet-network-policies postrouting".into()), "{names:?}");
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_refusal_is_the_kernels() {
        let refusal = bytes("24000000020000000100000000000000ffffffff140000000a0a01030100000000000000");
        let (ended, _) = read(&refusal, CHAIN);
        assert_eq!(ended.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}

//! TCX links by interface index (aya takes names, which may change hands between two calls) and who else is there.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use enforcer_abi::Direction;

use super::{Command, bpf, bpf_fd, object_info};

/// A TCX hook of an interface, `enum bpf_attach_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Hook {
    /// What the interface receives: on the host side of a veth, what the pod sends.
    Ingress = 46,
    /// What is sent out by the interface: on the host side of a veth, what goes to the pod.
    Egress = 47,
}

impl From<Direction> for Hook {
    /// The host side of a veth sees the pod's directions the other way round.
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Ingress => Self::Egress,
            Direction::Egress => Self::Ingress,
        }
    }
}

/// `BPF_LINK_CREATE` for TCX
#[repr(C)]
struct CreateAttr {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    reserved: u32,
    expected_revision: u64,
}

/// `BPF_LINK_UPDATE`
#[repr(C)]
struct UpdateAttr {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

/// `BPF_PROG_QUERY`
#[repr(C)]
struct QueryAttr {
    ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    reserved: u32,
    attach_flags_each: u64,
    links: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The start of `struct bpf_link_info`, with the fields of TCX.
#[derive(Default)]
#[repr(C)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
}

/// The start of `struct bpf_prog_info`.
#[derive(Default)]
#[repr(C)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by_uid: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}

/// A TCX link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkInfo {
    /// Of the program that it runs.
    pub(crate) program: u32,
    /// 0 once the interface is gone.
    pub(crate) ifindex: u32,
}

/// Attaches ahead of all programs that are there. The link ends with the last descriptor or pin of it.
pub(crate) fn tcx_attach_first(program: BorrowedFd<'_>, ifindex: u32, hook: Hook) -> io::Result<OwnedFd> {
    const BEFORE: u32 = 1 << 3;
    let mut attr = CreateAttr {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: hook as u32,
        flags: BEFORE,
        relative: 0,
        reserved: 0,
        expected_revision: 0,
    };
    // SAFETY: integers only.
    unsafe { bpf_fd(Command::LinkCreate, &mut attr) }
}

/// Replaces the program of a link, atomically. `ENOLINK` if the interface is gone.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = UpdateAttr {
        link: link.as_raw_fd().cast_unsigned(),
        new_program: program.as_raw_fd().cast_unsigned(),
        flags: 0,
        old_program: 0,
    };
    // SAFETY: integers only.
    unsafe { bpf(Command::LinkUpdate, &mut attr) }.map(drop)
}

/// Ends a link at once, whoever else holds it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = link.as_raw_fd().cast_unsigned();
    // SAFETY: an integer.
    unsafe { bpf(Command::LinkDetach, &mut attr) }.map(drop)
}

/// What the kernel says of a link.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    // SAFETY: integers only.
    unsafe { object_info(link, &mut info) }?;
    Ok(LinkInfo { program: info.program, ifindex: info.ifindex })
}

/// The kernel's id of a program.
pub(crate) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(program_info(program)?.id)
}

/// The name of a program, if the kernel tells (it takes `CAP_SYS_ADMIN` to ask by id).
pub(crate) fn program_name(id: u32) -> Option<String> {
    let mut attr = [id, 0, 0];
    // SAFETY: integers only.
    let program = unsafe { bpf_fd(Command::ProgFdById, &mut attr) }.ok()?;
    let info = program_info(program.as_fd()).ok()?;
    let name: Vec<u8> = info.name.into_iter().take_while(|&byte| byte != 0).collect();
    String::from_utf8(name).ok().filter(|name| !name.is_empty())
}

fn program_info(program: BorrowedFd<'_>) -> io::Result<RawProgramInfo> {
    let mut info = RawProgramInfo::default();
    // SAFETY: integers only, and the addresses in it are zero.
    unsafe { object_info(program, &mut info) }?;
    Ok(info)
}

/// The ids of the programs at a hook, in the order in which they run.
pub(crate) fn tcx_query(ifindex: u32, hook: Hook) -> io::Result<Vec<u32>> {
    let mut room = 64;
    loop {
        let mut ids = vec![0u32; room];
        let mut attr = QueryAttr {
            ifindex,
            attach_type: hook as u32,
            query_flags: 0,
            attach_flags: 0,
            programs: ids.as_mut_ptr().expose_provenance() as u64,
            count: u32::try_from(room).unwrap_or(u32::MAX),
            reserved: 0,
            attach_flags_each: 0,
            links: 0,
            link_attach_flags: 0,
            revision: 0,
        };
        // SAFETY: there is room for `count` ids.
        match unsafe { bpf(Command::ProgQuery, &mut attr) } {
            Ok(_) => {
                ids.truncate(attr.count as usize);
                return Ok(ids);
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
            // No program was ever attached here.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
}

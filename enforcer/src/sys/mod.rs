//! The bpf(2) calls that aya has no public way for: links by interface index, typed maps over pinned descriptors, a
//! wait for all running programs. The only place in this crate with `unsafe`.
#![expect(unsafe_code, reason = "bpf(2) takes pointers; everything above this module calls it through safe types")]

mod link;
mod map;

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

pub(crate) use link::{
    Hook, link_detach, link_info, link_update, program_id, program_name, tcx_attach_first, tcx_query,
};
pub(crate) use map::{Cursor, Map, MapShape, PerCpuMap, delete_from_pin};

/// Commands of bpf(2), `enum bpf_cmd` of the kernel's include/uapi/linux/bpf.h.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ObjPin = 6,
    ObjGet = 7,
    ProgFdById = 13,
    ObjInfo = 15,
    ProgQuery = 16,
    MapLookupBatch = 24,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkDetach = 34,
}

/// bpf(2) with one member of `union bpf_attr`.
///
/// # Safety
///
/// `attr` must be laid out as the union's member for `command`, without padding, and every address in it must be valid
/// for what the kernel does with it.
unsafe fn bpf<T>(command: Command, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the caller vouches for the contents; pointer and size describe `attr`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command as u32, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(result).unwrap_or(0)) }
}

/// [`bpf`] for the commands that return a new descriptor.
///
/// # Safety
///
/// As [`bpf`]; `command` must be one that returns a descriptor.
unsafe fn bpf_fd<T>(command: Command, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just made this descriptor for us, close-on-exec as all of bpf(2)'s.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_OBJ_PIN` and `BPF_OBJ_GET`
#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn path_pointer(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_nul| io::ErrorKind::InvalidInput.into())
}

/// Pins a map, program or link. Fails with `EEXIST` if something lies there.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = path_pointer(path)?;
    let mut attr =
        ObjectAttr { path: name.as_ptr().expose_provenance() as u64, fd: object.as_raw_fd().cast_unsigned(), flags: 0 };
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { bpf(Command::ObjPin, &mut attr) }.map(drop)
}

/// Opens what is pinned at `path`.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = path_pointer(path)?;
    let mut attr = ObjectAttr { path: name.as_ptr().expose_provenance() as u64, fd: 0, flags: 0 };
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { bpf_fd(Command::ObjGet, &mut attr) }
}

/// The bytes that the kernel says a map takes (`memlock` in its fdinfo, `bpf_map_show_fdinfo` in kernel/bpf/syscall.c):
/// up to 5.10 those it was charged with, then its size times its entries, and from 6.4 on those in use. `None` where it
/// doesn't tell.
pub(crate) fn map_memory(map: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    let told = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(told.and_then(|bytes| bytes.trim().parse().ok()))
}

/// `BPF_OBJ_GET_INFO_BY_FD`
#[repr(C)]
struct InfoAttr {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// Fills as much of `T` as the kernel knows; `T` must start with the fields of the object's `struct bpf_*_info`.
///
/// # Safety
///
/// Every bit pattern must be a valid `T`, and no field of it may be a non-zero address.
unsafe fn object_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = InfoAttr {
        fd: object.as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?,
        info: std::ptr::from_mut(info).expose_provenance() as u64,
    };
    // SAFETY: the kernel writes at most `info_len` bytes to `info`.
    unsafe { bpf(Command::ObjInfo, &mut attr) }.map(drop)
}

/// Lifts `RLIMIT_MEMLOCK`, which kernels before 5.11 charge maps and programs to.
pub(crate) fn lift_memlock() -> io::Result<()> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    Ok(setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?)
}

/// Waits until every run of any BPF program that has begun has ended.
#[derive(Debug)]
pub(crate) struct GracePeriod {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl GracePeriod {
    /// Makes the two small maps that [`Self::wait`] works with.
    pub(crate) fn new() -> io::Result<Self> {
        const ARRAY: u32 = 2;
        const ARRAY_OF_MAPS: u32 = 12;
        let inner = map::create(ARRAY, [4, 4, 1], None)?;
        let outer = map::create(ARRAY_OF_MAPS, [4, 4, 1], Some(&inner))?;
        Ok(Self { outer, inner })
    }

    /// The kernel ends an update of a map of maps from user space by `synchronize_rcu`, so that the caller knows that
    /// no program uses the element that was replaced (`maybe_wait_bpf_programs` in kernel/bpf/syscall.c, since 5.0,
    /// <https://github.com/torvalds/linux/commit/1ae80cf31938c8f77c37a29bbe29e7f1cd492be8>). Programs run under the
    /// RCU read lock, which is all that is needed here.
    pub(crate) fn wait(&self) -> io::Result<()> {
        map::update(&self.outer, &0u32, &self.inner.as_raw_fd().cast_unsigned(), 0)
    }
}

/// Reads a record of the ring buffer; `None` if its length is another.
pub(crate) fn read_event(record: &[u8]) -> Option<enforcer_abi::Event> {
    let exact: &[u8; size_of::<enforcer_abi::Event>()] = record.first_chunk()?;
    // SAFETY: that many bytes, and every bit pattern is an Event.
    (record.len() == exact.len()).then(|| unsafe { exact.as_ptr().cast::<enforcer_abi::Event>().read_unaligned() })
}

/// The kernel's release as uname(2) tells it: what `aya` reads its version from.
pub(crate) fn release() -> String {
    let mut name = std::mem::MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: uname(2) writes one `utsname`, which `name` has room for.
    let answer = unsafe { libc::uname(name.as_mut_ptr()) };
    if answer != 0 {
        return "unknown".to_owned();
    }
    // SAFETY: it is arrays of characters, for which zeros are valid, and uname(2) has filled them in.
    let name = unsafe { name.assume_init() };
    let bytes = name.release.iter().map(|&c| c.to_ne_bytes()[0]).take_while(|&c| c != 0).collect::<Vec<_>>();
    String::from_utf8_lossy(&bytes).into_owned()
}

//! Typed maps: the sizes of key and value are compared with the kernel's when a map is opened, so that no call can
//! read or write past a value.

use std::{
    io,
    marker::PhantomData,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::Pod;

use super::{Command, bpf, bpf_fd, object_info, open_pin};

/// What is fixed when a map is created: `enum bpf_map_type`, bytes of key and value, number of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapShape {
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
}

impl MapShape {
    /// `BPF_MAP_TYPE_LPM_TRIE`
    const LPM_TRIE: u32 = 11;

    /// Of the map pinned at `path`.
    pub(crate) fn of_pin(path: &Path) -> io::Result<Self> {
        Self::of(open_pin(path)?.as_fd())
    }

    fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        let mut info = MapInfo::default();
        // SAFETY: integers only.
        unsafe { object_info(map, &mut info) }?;
        Ok(Self {
            kind: info.kind,
            key_size: info.key_size,
            value_size: info.value_size,
            max_entries: info.max_entries,
        })
    }
}

/// The start of `struct bpf_map_info`.
#[derive(Default)]
#[repr(C)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// `BPF_MAP_*_ELEM` and `BPF_MAP_GET_NEXT_KEY`
#[repr(C)]
struct ElementAttr {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `BPF_MAP_CREATE`, its first fields
#[repr(C)]
struct CreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
}

/// `BPF_MAP_LOOKUP_BATCH`
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

pub(super) fn create(kind: u32, sizes: [u32; 3], inner: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    let [key_size, value_size, max_entries] = sizes;
    let inner_map = inner.map_or(0, |inner| inner.as_raw_fd().cast_unsigned());
    let mut attr = CreateAttr { kind, key_size, value_size, max_entries, flags: 0, inner_map };
    // SAFETY: integers only.
    unsafe { bpf_fd(Command::MapCreate, &mut attr) }
}

pub(super) fn update<K: Pod, V: Pod>(map: &OwnedFd, key: &K, value: &V, flags: u64) -> io::Result<()> {
    let mut attr = ElementAttr {
        map: map.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: std::ptr::from_ref(key).expose_provenance() as u64,
        value: std::ptr::from_ref(value).expose_provenance() as u64,
        flags,
    };
    // SAFETY: both live during the call; callers open maps of these sizes only.
    unsafe { bpf(Command::MapUpdate, &mut attr) }.map(drop)
}

/// A map of fixed key and value.
#[derive(Debug)]
pub(crate) struct Map<K, V> {
    fd: OwnedFd,
    shape: MapShape,
    types: PhantomData<fn(K) -> V>,
}

/// Removes the entry of `key` from a pinned map, whatever its values are; says whether it was there.
pub(crate) fn delete_from_pin<K: Pod>(path: &Path, key: &K) -> io::Result<bool> {
    let fd = open_pin(path)?;
    let shape = MapShape::of(fd.as_fd())?;
    if shape.key_size as usize != size_of::<K>() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its keys are of another size"));
    }
    // no value is read or written
    Map::<K, K> { fd, shape, types: PhantomData }.delete(key)
}

/// Where a walk over a map stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cursor<K> {
    /// At the beginning.
    Start,
    /// Before this bucket of a hash.
    Bucket(u32),
    /// After this key of a trie.
    After(K),
    /// At the end.
    End,
}

impl<K: Pod, V: Pod> Map<K, V> {
    /// Opens a pinned map and compares its sizes with the types'.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let fd = open_pin(path)?;
        let shape = MapShape::of(fd.as_fd())?;
        if shape.key_size as usize != size_of::<K>() || shape.value_size as usize != size_of::<V>() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its keys or values are of another size"));
        }
        Ok(Self { fd, shape, types: PhantomData })
    }

    pub(crate) fn max_entries(&self) -> u32 {
        self.shape.max_entries
    }

    /// The value of `key`, in a trie that of its longest prefix.
    pub(crate) fn get(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let mut attr = self.element(key, value.as_mut_ptr().expose_provenance() as u64, 0);
        // SAFETY: the kernel reads a K and writes a V, whose sizes `open` has compared.
        match unsafe { bpf(Command::MapLookup, &mut attr) } {
            // SAFETY: written by the kernel; every bit pattern is a V, because V is Pod.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an entry and says whether it is new. Tries before 6.13 ignore `BPF_NOEXIST` and call every entry new
    /// (<https://github.com/torvalds/linux/commit/eae6a075e9537dd69891cf77ca5a88fa8a28b4a1>).
    pub(crate) fn put(&self, key: &K, value: &V) -> io::Result<bool> {
        const ANY: u64 = 0;
        const NO_EXIST: u64 = 1;
        match update(&self.fd, key, value, NO_EXIST) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                update(&self.fd, key, value, ANY).map(|()| false)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes an element of an array, which always exists.
    pub(crate) fn set(&self, key: &K, value: &V) -> io::Result<()> {
        update(&self.fd, key, value, 0)
    }

    /// Removes an entry and says whether it was there.
    pub(crate) fn delete(&self, key: &K) -> io::Result<bool> {
        let mut attr = self.element(key, 0, 0);
        // SAFETY: the kernel reads a K, whose size `open` has compared.
        match unsafe { bpf(Command::MapDelete, &mut attr) } {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All entries. Of a map that changes meanwhile, each entry that was there all the time at least once.
    pub(crate) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        let mut cursor = Cursor::Start;
        while !matches!(cursor, Cursor::End) {
            cursor = self.read(cursor, &mut entries)?;
        }
        Ok(entries)
    }

    /// Appends about a thousand entries from `cursor` on and returns where to go on.
    pub(crate) fn read(&self, cursor: Cursor<K>, into: &mut Vec<(K, V)>) -> io::Result<Cursor<K>> {
        if self.shape.kind == MapShape::LPM_TRIE { self.read_trie(cursor, into) } else { self.read_hash(cursor, into) }
    }

    /// By buckets, so that entries that come and go don't make the walk begin again, as they would by keys.
    fn read_hash(&self, cursor: Cursor<K>, into: &mut Vec<(K, V)>) -> io::Result<Cursor<K>> {
        const AT_ONCE: usize = 1024;
        let bucket = match cursor {
            Cursor::Start => None,
            Cursor::Bucket(bucket) => Some(bucket),
            Cursor::After(_) | Cursor::End => return Ok(Cursor::End),
        };
        let mut room = AT_ONCE;
        loop {
            match self.read_buckets(bucket, room, into) {
                // One bucket holds more than there was room for.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
                other => return other,
            }
        }
    }

    fn read_buckets(&self, bucket: Option<u32>, room: usize, into: &mut Vec<(K, V)>) -> io::Result<Cursor<K>> {
        let mut keys = Vec::<K>::with_capacity(room);
        let mut values = Vec::<V>::with_capacity(room);
        let mut next = 0u32;
        let mut attr = BatchAttr {
            in_batch: bucket.as_ref().map_or(0, |bucket| std::ptr::from_ref(bucket).expose_provenance() as u64),
            out_batch: std::ptr::from_mut(&mut next).expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: u32::try_from(room).unwrap_or(u32::MAX),
            map: self.fd.as_raw_fd().cast_unsigned(),
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: there is room for `count` keys and values of the sizes that `open` has compared; a hash's batch
        // token is a u32.
        let result = unsafe { bpf(Command::MapLookupBatch, &mut attr) };
        let end = match result {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let count = (attr.count as usize).min(room);
        // SAFETY: the kernel has written `count` of each, and every bit pattern is valid, because both are Pod.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        into.extend(keys.into_iter().zip(values));
        Ok(if end { Cursor::End } else { Cursor::Bucket(next) })
    }

    /// By keys, the only way for tries before 5.16.
    fn read_trie(&self, cursor: Cursor<K>, into: &mut Vec<(K, V)>) -> io::Result<Cursor<K>> {
        const AT_ONCE: usize = 1024;
        let mut after = match cursor {
            Cursor::Start => None,
            Cursor::After(key) => Some(key),
            Cursor::Bucket(_) | Cursor::End => return Ok(Cursor::End),
        };
        for _ in 0..AT_ONCE {
            let Some(key) = self.next_key(after.as_ref())? else { return Ok(Cursor::End) };
            if let Some(value) = self.get(&key)? {
                into.push((key, value));
            }
            after = Some(key);
        }
        Ok(after.map_or(Cursor::End, Cursor::After))
    }

    fn next_key(&self, after: Option<&K>) -> io::Result<Option<K>> {
        let mut next = MaybeUninit::<K>::uninit();
        let mut attr = ElementAttr {
            map: self.fd.as_raw_fd().cast_unsigned(),
            reserved: 0,
            key: after.map_or(0, |key| std::ptr::from_ref(key).expose_provenance() as u64),
            value: next.as_mut_ptr().expose_provenance() as u64,
            flags: 0,
        };
        // SAFETY: the kernel reads a K or nothing and writes a K, whose size `open` has compared.
        match unsafe { bpf(Command::MapNextKey, &mut attr) } {
            // SAFETY: written by the kernel; every bit pattern is a K, because K is Pod.
            Ok(_) => Ok(Some(unsafe { next.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn element(&self, key: &K, value: u64, flags: u64) -> ElementAttr {
        ElementAttr {
            map: self.fd.as_raw_fd().cast_unsigned(),
            reserved: 0,
            key: std::ptr::from_ref(key).expose_provenance() as u64,
            value,
            flags,
        }
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An array with one value per possible CPU.
#[derive(Debug)]
pub(crate) struct PerCpuMap<V> {
    map: OwnedFd,
    max_entries: u32,
    cpus: usize,
    types: PhantomData<fn() -> V>,
}

impl<V: Pod> PerCpuMap<V> {
    /// Opens a pinned map and compares its sizes with the type's, which must be a multiple of 8 bytes.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        const { assert!(size_of::<V>().is_multiple_of(8), "the kernel rounds each CPU's value up to 8 bytes") };
        let map = open_pin(path)?;
        let shape = MapShape::of(map.as_fd())?;
        if shape.key_size != 4 || shape.value_size as usize != size_of::<V>() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its keys or values are of another size"));
        }
        let cpus = aya::util::nr_cpus().map_err(|(_path, error)| error)?;
        Ok(Self { map, max_entries: shape.max_entries, cpus, types: PhantomData })
    }

    pub(crate) fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// One value per possible CPU.
    pub(crate) fn get(&self, index: u32) -> io::Result<Vec<V>> {
        let mut values = Vec::<V>::with_capacity(self.cpus);
        let mut attr = self.element(&index, values.as_mut_ptr().expose_provenance() as u64);
        // SAFETY: the kernel writes one V per possible CPU, whose size `open` has compared; there is room for them.
        unsafe { bpf(Command::MapLookup, &mut attr) }?;
        // SAFETY: written by the kernel; every bit pattern is a V, because V is Pod.
        unsafe { values.set_len(self.cpus) };
        Ok(values)
    }

    /// Writes the value of every CPU.
    pub(crate) fn set(&self, index: u32, values: &[V]) -> io::Result<()> {
        if values.len() != self.cpus {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attr = self.element(&index, values.as_ptr().expose_provenance() as u64);
        // SAFETY: the kernel reads one V per possible CPU, and there are as many.
        unsafe { bpf(Command::MapUpdate, &mut attr) }.map(drop)
    }

    fn element(&self, index: &u32, value: u64) -> ElementAttr {
        ElementAttr {
            map: self.map.as_raw_fd().cast_unsigned(),
            reserved: 0,
            key: std::ptr::from_ref(index).expose_provenance() as u64,
            value,
            flags: 0,
        }
    }
}

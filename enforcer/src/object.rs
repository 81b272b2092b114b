//! From the ELF object to loaded programs: which maps it must have, how large they are made, what the verifier says.
//! Entry point: [`load`].

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::MapError,
    programs::{Program, ProgramError, SchedClassifier},
};
use enforcer_abi::{Direction, Settings, map};
use thiserror::Error;

use crate::sys::{self, MapShape};

/// Why the packet program could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object is not what this crate was built for.
    #[error("the packet program has no {part} named {name}: it was built from another version of Sluice")]
    Incomplete {
        /// 'map' or 'program'
        part: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A pinned map can't be used by this program.
    #[error(
        "the map pinned at {path} has another type or other sizes than layout {version} has: \
         `sluice-agent cleanup` removes all pins"
    )]
    ForeignMap {
        /// The pin.
        path: String,
        /// [`enforcer_abi::LAYOUT_VERSION`]
        version: u32,
    },
    /// The kernel refused to make a map.
    #[error("the kernel refused the map {name} of {entries} entries{}", way_out(.source))]
    Map {
        /// Its name.
        name: String,
        /// How large it was to be.
        entries: u32,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The verifier refused a program.
    #[error("the kernel's verifier refused {program}; its last words:\n{lines}")]
    Rejected {
        /// The program.
        program: &'static str,
        /// The log's last useful lines.
        lines: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks a BPF helper.
    #[error("this kernel has no BPF helper {helper}, which {program} needs: boot kernel 5.10 or newer")]
    MissingHelper {
        /// As the verifier names it.
        helper: String,
        /// The program.
        program: &'static str,
    },
    /// The kernel refused a program without a word.
    #[error("the kernel refused {program}")]
    Refused {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The object could not be read or prepared.
    #[error("the packet program could not be prepared for this kernel")]
    Object(#[source] Box<EbpfError>),
    /// A descriptor could not be duplicated.
    #[error("no file descriptor left for a program")]
    Descriptor(#[source] io::Error),
}

/// What is known of each map beforehand: its name, `enum bpf_map_type`, bytes of key and value.
pub(crate) struct MapSpec {
    pub(crate) name: &'static str,
    kind: u32,
    key_size: usize,
    value_size: usize,
}

const fn spec(name: &'static str, kind: u32, key_size: usize, value_size: usize) -> MapSpec {
    MapSpec { name, kind, key_size, value_size }
}

/// Every map of the object, `enforcer_abi::map` in the order of that file.
pub(crate) const MAPS: [MapSpec; 18] = {
    use enforcer_abi::{
        Address, BlockKey, ClassId, Counters, EventBudget, FlowKey, FlowValue, FragmentKey, FragmentValue, FrontEndKey,
        FrontEndValue, PeerValue, PodEntry, PortKey, PortRangeKey, PortValue, RowKey, RowValue,
    };
    const HASH: u32 = 1;
    const ARRAY: u32 = 2;
    const PER_CPU_ARRAY: u32 = 6;
    const LRU_HASH: u32 = 9;
    const LPM_TRIE: u32 = 11;
    const RING_BUFFER: u32 = 27;
    [
        spec(map::PODS, HASH, 4, size_of::<PodEntry>()),
        spec(map::PEERS, HASH, size_of::<Address>(), size_of::<PeerValue>()),
        spec(map::BLOCKS, LPM_TRIE, size_of::<BlockKey>(), size_of::<ClassId>()),
        spec(map::PORTS, HASH, size_of::<PortKey>(), size_of::<PortValue>()),
        spec(map::PORT_RANGES, LPM_TRIE, size_of::<PortRangeKey>(), size_of::<PortValue>()),
        spec(map::ROWS, HASH, size_of::<RowKey>(), size_of::<RowValue>()),
        spec(map::FRONT_ENDS, HASH, size_of::<FrontEndKey>(), size_of::<FrontEndValue>()),
        spec(map::FLOWS, LRU_HASH, size_of::<FlowKey>(), size_of::<FlowValue>()),
        spec(map::OPENINGS, LRU_HASH, size_of::<FlowKey>(), size_of::<FlowValue>()),
        spec(map::PREVIOUS_FLOWS, LRU_HASH, size_of::<FlowKey>(), size_of::<FlowValue>()),
        spec(map::FRAGMENTS, LRU_HASH, size_of::<FragmentKey>(), size_of::<FragmentValue>()),
        spec(map::EPOCHS, ARRAY, 4, 8),
        spec(map::COUNTERS, PER_CPU_ARRAY, 4, size_of::<Counters>()),
        spec(map::EVENT_BUDGET, PER_CPU_ARRAY, 4, size_of::<EventBudget>()),
        spec(map::EVENTS, RING_BUFFER, 0, 0),
        spec(map::NODE_ADDRESSES, HASH, size_of::<Address>(), 4),
        spec(map::NODE_INTERFACES, HASH, 4, 4),
        spec(map::ENDPOINTS, HASH, size_of::<Address>(), 4),
    ]
};

/// One map of a generation: pinned at `pin` already, or to be made with `entries` and pinned there.
pub(crate) struct MapPlan {
    pub(crate) name: &'static str,
    /// Without a pin it lives as long as the programs.
    pub(crate) pin: Option<PathBuf>,
    pub(crate) entries: u32,
}

/// The two programs of one generation.
#[derive(Debug)]
pub(crate) struct Programs {
    to_pod: OwnedFd,
    from_pod: OwnedFd,
}

impl Programs {
    /// Those that an agent has pinned in the folder of a layout.
    pub(crate) fn open(layout: &Path) -> io::Result<Self> {
        Ok(Self {
            to_pod: sys::open_pin(&layout.join(program_name(Direction::Ingress)))?,
            from_pod: sys::open_pin(&layout.join(program_name(Direction::Egress)))?,
        })
    }

    /// The program that judges packets of this direction.
    pub(crate) fn of(&self, direction: Direction) -> &OwnedFd {
        match direction {
            Direction::Ingress => &self.to_pod,
            Direction::Egress => &self.from_pod,
        }
    }
}

/// The name of the program that judges packets of this direction.
pub(crate) const fn program_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => map::TO_POD,
        Direction::Egress => map::FROM_POD,
    }
}

/// Makes and pins the maps that aren't pinned yet, and loads both programs on them.
pub(crate) fn load(object: &[u8], settings: &Settings, plan: &[MapPlan]) -> Result<Programs, LoadError> {
    for entry in plan {
        check_pinned(entry)?;
    }
    let mut ebpf = prepare(object, Some(settings), plan)?;
    for entry in plan {
        if ebpf.map(entry.name).is_none() {
            return Err(LoadError::Incomplete { part: "map", name: entry.name });
        }
    }
    let mut program = |name| -> Result<OwnedFd, LoadError> {
        let program = load_program(&mut ebpf, name)?;
        let fd = program.fd().map_err(|error| LoadError::Refused { program: name, source: Box::new(error) })?;
        fd.as_fd().try_clone_to_owned().map_err(LoadError::Descriptor)
    };
    Ok(Programs { to_pod: program(map::TO_POD)?, from_pod: program(map::FROM_POD)? })
}

/// Reads the object and makes its maps.
pub(crate) fn prepare(object: &[u8], settings: Option<&Settings>, plan: &[MapPlan]) -> Result<Ebpf, LoadError> {
    let mut loader = EbpfLoader::new();
    if let Some(settings) = settings {
        loader.override_global(map::SETTINGS, settings, true);
    }
    for entry in plan {
        loader.map_max_entries(entry.name, entry.entries);
        if let Some(pin) = &entry.pin {
            loader.map_pin_path(entry.name, pin.as_path());
        }
    }
    loader.load(object).map_err(|error| match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            let entries = plan.iter().find(|entry| entry.name == name).map_or(0, |entry| entry.entries);
            LoadError::Map { name, entries, source: io_error }
        }
        other => LoadError::Object(Box::new(other)),
    })
}

/// How often a program is handed to the verifier, which gives up with EAGAIN when its thread has a signal to take
/// (kernel commit c3494801cd17). libbpf tries as often.
const ATTEMPTS: usize = 5;

/// Hands one program to the verifier.
pub(crate) fn load_program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, LoadError> {
    let Some(Program::SchedClassifier(program)) = ebpf.program_mut(name) else {
        return Err(LoadError::Incomplete { part: "program", name });
    };
    let mut attempts = 1;
    let loaded = loop {
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if io_error.raw_os_error() == Some(libc::EAGAIN) && attempts < ATTEMPTS =>
            {
                tracing::debug!(program = name, "a signal came while it was verified");
                attempts += 1;
            }
            loaded => break loaded,
        }
    };
    match loaded {
        Ok(()) => Ok(program),
        Err(ProgramError::LoadError { io_error, verifier_log }) => {
            let log = verifier_log.to_string();
            tracing::debug!(program = name, log, "the verifier's whole log");
            Err(rejection(name, &log, io_error))
        }
        Err(error) => Err(LoadError::Refused { program: name, source: Box::new(error) }),
    }
}

fn check_pinned(entry: &MapPlan) -> Result<(), LoadError> {
    let (Some(pin), Some(spec)) = (&entry.pin, MAPS.iter().find(|spec| spec.name == entry.name)) else {
        return Ok(());
    };
    let Ok(shape) = MapShape::of_pin(pin) else { return Ok(()) };
    let same = shape.kind == spec.kind
        && shape.key_size as usize == spec.key_size
        && shape.value_size as usize == spec.value_size;
    if same {
        Ok(())
    } else {
        Err(LoadError::ForeignMap { path: pin.display().to_string(), version: enforcer_abi::LAYOUT_VERSION })
    }
}

/// The entries of a pinned map, `None` if there is none.
pub(crate) fn pinned_entries(pin: &Path) -> Option<u32> {
    MapShape::of_pin(pin).ok().map(|shape| shape.max_entries)
}

/// What can be done about a map that the kernel refuses.
fn way_out(refusal: &io::Error) -> &'static str {
    match refusal.raw_os_error() {
        Some(libc::ENOMEM | libc::E2BIG) => ", for which it has no memory: make it smaller",
        Some(libc::EPERM | libc::EACCES) => ": seccomp or a security module forbids this process bpf(2)",
        Some(libc::ENOSYS) => ": boot one that was built with CONFIG_BPF_SYSCALL",
        _ => "",
    }
}

fn rejection(program: &'static str, log: &str, source: io::Error) -> LoadError {
    // "unknown func bpf_ringbuf_output#130", and since 6.9 "program of this type cannot use helper bpf_...#130"
    let helper = log.lines().rev().find_map(|line| {
        let rest = line.split_once("unknown func ").or_else(|| line.split_once("cannot use helper "))?.1;
        Some(rest.split_whitespace().next().unwrap_or(rest).to_owned())
    });
    match helper {
        Some(helper) => LoadError::MissingHelper { helper, program },
        None if log.trim().is_empty() => {
            LoadError::Refused { program, source: Box::new(ProgramError::IOError(source)) }
        }
        None => LoadError::Rejected { program, lines: last_words(log), source },
    }
}

/// The end of a verifier's log without its statistics and register states: what was wrong, and the instructions and
/// source lines that led there.
fn last_words(log: &str) -> String {
    const LINES: usize = 12;
    let is_statistics = |line: &&str| {
        ["processed ", "verification time ", "stack depth ", "max_states", "total_states"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| !is_statistics(line))
        .map(|line| line[..state_begins(line).unwrap_or(line.len())].trim_end())
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// Where the states of the registers begin in a line such as `3: (bf) r6 = r1 ; frame2: R1=ctx() R6=ctx()`.
fn state_begins(line: &str) -> Option<usize> {
    let register = line.match_indices(" R").map(|(at, _)| at).find(|&at| {
        let rest = line[at + 2..].trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < line.len() - at - 2 && (rest.starts_with('=') || rest.starts_with("_w="))
    })?;
    let before = line[..register].trim_end();
    // "; frame2:", and before it, where a branch ends, the number of the next instruction
    let before = before.strip_suffix(':').map_or(before, |start| start.trim_end_matches(|c: char| c.is_ascii_digit()));
    let before = before.strip_suffix("frame").unwrap_or(before).trim_end();
    Some(before.trim_end_matches(';').len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_words_leave_out_its_statistics() {
        let log = "0: (b7) r0 = 0   ; frame2: R0_w=0\n; a line of source @ file.rs:1\n1: (1d) if r5 == r7 goto pc+1 \
                   3: R5=scalar(smin=0) R7=1 fp-48=00000m0\ninvalid mem access 'scalar'\n\
                   verification time 12 usec\nstack depth 0\nprocessed 2 insns (limit 1000000) max_states_per_insn 0\n";
        let error = rejection(map::TO_POD, log, io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(
            error.to_string(),
            "the kernel's verifier refused sluice_to_pod; its last words:\n  0: (b7) r0 = 0\n  ; a line of source @ \
             file.rs:1\n  1: (1d) if r5 == r7 goto pc+1\n  invalid mem access 'scalar'"
        );
    }

    #[test]
    fn a_refused_map_has_a_way_out() {
        #[track_caller]
        fn check(errno: i32, expected: &str) {
            let source = io::Error::from_raw_os_error(errno);
            let error = LoadError::Map { name: "FLOWS".into(), entries: 7, source };
            assert_eq!(error.to_string(), format!("the kernel refused the map FLOWS of 7 entries{expected}"));
        }
        check(libc::ENOMEM, ", for which it has no memory: make it smaller");
        check(libc::EPERM, ": seccomp or a security module forbids this process bpf(2)");
        check(libc::ENOSYS, ": boot one that was built with CONFIG_BPF_SYSCALL");
        check(libc::EINVAL, "");
    }

    #[test]
    fn a_missing_helper_is_named() {
        let log = "5: (85) call bpf_jiffies64#118\nunknown func bpf_jiffies64#118\nprocessed 6 insns\n";
        let error = rejection(map::TO_POD, log, io::Error::from_raw_os_error(libc::EINVAL));
        assert!(matches!(&error, LoadError::MissingHelper { helper, .. } if helper == "bpf_jiffies64#118"), "{error}");
    }
}

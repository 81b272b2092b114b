//! The packet program loaded for test runs: no pins, no links, maps of its own. Entry point: [`Program::load`].

use std::{
    borrow::Cow,
    collections::BTreeMap,
    env, fs,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use enforcer_abi::{
    Address, Counters, Direction, Event, EventBudget, FlowKey, FlowValue, FragmentKey, FragmentValue, FrontEndKey,
    FrontEndValue, PeerValue, PodEntry, PortKey, PortValue, Reason, RowKey, RowValue, Settings, epoch_cell, map,
};

use nix::sys::resource::{UsageWho, getrusage};

pub use super::context::Context;
use super::event::{event, part};

/// What the program says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next program of the chain may judge it.
    Pass,
    /// It ends here.
    Drop,
}

/// Packets to pods that were dropped, in all test runs of this process. A class of tests that never saw one has run on a
/// kernel that doesn't take `ingress_ifindex` from the context, and has shown nothing about ingress.
pub static INGRESS_DENIALS: AtomicU64 = AtomicU64::new(0);

/// Whether the kernel takes [`Context::ingress_ifindex`].
static TAKES_ORIGIN: OnceLock<bool> = OnceLock::new();

/// Room in the maps, where it differs from the program's own: by map name.
pub type Sizes = BTreeMap<&'static str, u32>;

/// The loaded program.
pub struct Program {
    ebpf: Ebpf,
    events: RingBuf<MapData>,
    settings: Settings,
    verifications: Vec<Verification>,
}

/// What the verifier made of one program.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The program's name.
    pub program: String,
    /// Instructions that the verifier walked over; kernels before 5.16 don't tell.
    pub instructions: Option<u32>,
    /// What the system call took of the processor.
    pub took: Duration,
}

/// What packets cost in operations on maps, arrays aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// In hashes, LRU or not.
    pub look_ups: u64,
    /// Into LRU hashes.
    pub insertions: u64,
    /// From LRU hashes.
    pub removals: u64,
    /// In LPM tries.
    pub trie_look_ups: u64,
    /// Reservations in the ring buffer.
    pub events: u64,
}

/// Maps need no room for a cluster here, and one of a few entries is made at once.
const SMALL: [(&str, u32); 13] = [
    (map::PODS, 512),
    (map::PEERS, 4096),
    (map::BLOCKS, 4096),
    (map::PORTS, 4096),
    (map::PORT_RANGES, 4096),
    (map::ROWS, 4096),
    (map::FRONT_ENDS, 4096),
    (map::FLOWS, 4096),
    (map::OPENINGS, 4096),
    (map::PREVIOUS_FLOWS, 1024),
    (map::FRAGMENTS, 1024),
    (map::ENDPOINTS, 4096),
    (map::COUNTERS, 512),
];

impl Program {
    /// Loads it with `settings`, and with room in the maps as `sizes` says.
    ///
    /// # Errors
    /// The kernel refuses; the verifier's words are in the error's chain.
    pub fn load(settings: Settings, sizes: &Sizes) -> Result<Self> {
        Self::load_object(&object()?, settings, sizes)
    }

    /// The same programs, which count what they ask of their maps, for [`Self::operations`].
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_counted(settings: Settings, sizes: &Sizes) -> Result<Self> {
        Self::load_object(enforcer::COUNTED_OBJECT, settings, sizes)
    }

    fn load_object(object: &[u8], settings: Settings, sizes: &Sizes) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        loader.override_global(map::SETTINGS, &settings, true);
        for (name, small) in SMALL {
            loader.map_max_entries(name, sizes.get(name).copied().unwrap_or(small));
        }
        if let Some(bytes) = sizes.get(map::EVENTS) {
            loader.map_max_entries(map::EVENTS, *bytes);
        }
        let mut ebpf = loader.load(object).context("loading the packet program")?;
        let mut verifications = Vec::new();
        for (name, program) in ebpf.programs_mut() {
            let program: &mut SchedClassifier = program.try_into()?;
            let begin = processor_time()?;
            program.load().context("the kernel refuses the packet program")?;
            let took = processor_time()?.saturating_sub(begin);
            let instructions = program.info().ok().and_then(|info| info.verified_instruction_count());
            verifications.push(Verification { program: name.to_owned(), instructions, took });
        }
        let events = ebpf.take_map(map::EVENTS).context("the program has no map EVENTS")?;
        Ok(Self { ebpf, events: RingBuf::try_from(events)?, settings, verifications })
    }

    /// What the verifier made of each program when it was loaded.
    #[must_use]
    pub fn verifications(&self) -> &[Verification] {
        &self.verifications
    }

    /// The settings it was loaded with.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// One packet.
    ///
    /// # Errors
    /// The kernel refuses the test run, or the program answers neither pass nor drop.
    pub fn run(&self, direction: Direction, frame: &[u8], context: Context) -> Result<Verdict> {
        Ok(self.time(direction, frame, context, 1)?.0)
    }

    /// One packet many times over: the last verdict, and the mean time of a run.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn time(
        &self,
        direction: Direction,
        frame: &[u8],
        context: Context,
        repeat: u32,
    ) -> Result<(Verdict, Duration)> {
        let context = match direction {
            // no packet from a pod is judged by it, and no kernel refuses 0
            Direction::Egress if !Self::takes_origin()? => Context { ingress_ifindex: 0, ..context },
            _ => context,
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context.bytes()),
            repeat,
            ..TestRunOptions::default()
        };
        let result = self.classifier(direction)?.test_run(options).with_context(|| {
            format!("the kernel refuses a test run of {} bytes at interface {}", frame.len(), context.ifindex)
        })?;
        // include/uapi/linux/pkt_cls.h; TCX_NEXT and TCX_DROP have the same numbers
        let verdict = match result.return_value.cast_signed() {
            -1 => Verdict::Pass,
            2 => {
                if direction == Direction::Ingress {
                    INGRESS_DENIALS.fetch_add(1, Ordering::Relaxed);
                }
                Verdict::Drop
            }
            other => bail!("the program answers {other}, which is neither `next program` nor `drop`"),
        };
        Ok((verdict, result.duration))
    }

    /// The program for a direction.
    ///
    /// # Errors
    /// The object has no such program.
    pub fn classifier(&self, direction: Direction) -> Result<&SchedClassifier> {
        let name = match direction {
            Direction::Ingress => map::TO_POD,
            Direction::Egress => map::FROM_POD,
        };
        Ok(self.ebpf.program(name).with_context(|| format!("the object has no program {name}"))?.try_into()?)
    }

    /// `bpf_jiffies64` now.
    ///
    /// # Errors
    /// The kernel refuses the test run.
    pub fn jiffies(&self) -> Result<u64> {
        let clock: &SchedClassifier =
            self.ebpf.program(map::CLOCK).context("the object has no program for the clock")?.try_into()?;
        clock_run(clock).map(|(jiffies, _)| jiffies)
    }

    /// Jiffies a second, as `bpf_jiffies64` itself tells: it began at 2^32 - 300 s (`INITIAL_JIFFIES`).
    ///
    /// # Errors
    /// The kernel refuses the program, or counts in none of the steps it can be configured for.
    pub fn hz() -> Result<u64> {
        let mut ebpf = clock_object()?;
        let (jiffies, nanoseconds) = clock_run(clock(&mut ebpf)?)?;
        let uptime = nanoseconds / 1_000_000_000;
        [100_u64, 250, 300, 1000]
            .into_iter()
            .find(|hz| {
                let counted = jiffies.wrapping_sub((1 << 32) - 300 * hz) / hz;
                counted.abs_diff(uptime) <= 5 + uptime / 100
            })
            .with_context(|| format!("{jiffies} jiffies in {uptime} s fit no HZ"))
    }

    /// Whether the kernel takes [`Context::ingress_ifindex`] in a test run: 5.10 refuses any but 0, and so every packet to
    /// a pod is the node's own there.
    ///
    /// # Errors
    /// The kernel refuses test runs as such.
    pub fn takes_origin() -> Result<bool> {
        if let Some(known) = TAKES_ORIGIN.get() {
            return Ok(*known);
        }
        let mut ebpf = clock_object()?;
        let clock = clock(&mut ebpf)?;
        clock_run(clock)?;
        let context = Context { ingress_ifindex: 1, ..Context::default() }.bytes();
        let options = TestRunOptions { data_in: Some(&[0; 64]), ctx_in: Some(&context), ..TestRunOptions::default() };
        let takes = clock.test_run(options).is_ok();
        Ok(*TAKES_ORIGIN.get_or_init(|| takes))
    }

    /// A map by its name, to be read or written.
    ///
    /// # Errors
    /// The object has no such map.
    pub fn map(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))
    }

    /// A hash map by its name, LRU or not.
    ///
    /// # Errors
    /// The object has no such map, or its keys or values have other sizes.
    pub fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        HashMap::try_from(self.map(name)?).with_context(|| format!("map {name}"))
    }

    /// Writes the entry of a pod's interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn put_pod(&mut self, entry: PodEntry) -> Result<()> {
        Ok(self.hash(map::PODS)?.insert(entry.ifindex, entry, 0)?)
    }

    /// Removes the entry of a pod's interface, if there is one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn delete_pod(&mut self, ifindex: u32) -> Result<()> {
        let mut pods = self.hash::<u32, PodEntry>(map::PODS)?;
        if pods.get(&ifindex, 0).is_ok() {
            pods.remove(&ifindex)?;
        }
        Ok(())
    }

    /// Raises the epoch of an interface by one.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn raise_epoch(&mut self, ifindex: u32) -> Result<()> {
        let mut epochs: Array<_, u64> = Array::try_from(self.map(map::EPOCHS)?)?;
        let now = epochs.get(&epoch_cell(ifindex), 0)?;
        Ok(epochs.set(epoch_cell(ifindex), now + 1, 0)?)
    }

    /// The counters of a slot, all CPUs together: packets by direction and reason.
    ///
    /// # Errors
    /// There is no such slot.
    pub fn counters(&mut self, slot: u32) -> Result<[[u64; Reason::COUNT]; 2]> {
        let counters: PerCpuArray<_, Counters> = PerCpuArray::try_from(self.map(map::COUNTERS)?)?;
        let mut sum = [[0; Reason::COUNT]; 2];
        for cpu in counters.get(&slot, 0)?.iter() {
            for (total, packets) in sum.iter_mut().flatten().zip(cpu.packets.iter().flatten()) {
                *total += packets;
            }
        }
        Ok(sum)
    }

    /// Leaves the maps as they were after loading, but for the epochs: of the flows that they are of, none is left.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reset(&mut self) -> Result<()> {
        self.evict::<u32, PodEntry>(map::PODS)?;
        self.evict::<Address, PeerValue>(map::PEERS)?;
        self.evict::<PortKey, PortValue>(map::PORTS)?;
        self.evict::<RowKey, RowValue>(map::ROWS)?;
        self.evict::<FrontEndKey, FrontEndValue>(map::FRONT_ENDS)?;
        for flows in [map::FLOWS, map::OPENINGS, map::PREVIOUS_FLOWS] {
            self.evict::<FlowKey, FlowValue>(flows)?;
        }
        self.evict::<FragmentKey, FragmentValue>(map::FRAGMENTS)?;
        for addresses in [map::NODE_ADDRESSES, map::ENDPOINTS] {
            self.evict::<Address, u32>(addresses)?;
        }
        self.evict::<u32, u32>(map::NODE_INTERFACES)?;
        super::tables::clear_tries(self)?;
        let cpus = nr_cpus().map_err(|(file, error)| anyhow::anyhow!("{file}: {error}"))?;
        let none = EventBudget { refilled: 0, tokens: 0, suppressed: 0, lost: 0 };
        let mut budget: PerCpuArray<_, EventBudget> = PerCpuArray::try_from(self.map(map::EVENT_BUDGET)?)?;
        budget.set(0, PerCpuValues::try_from(vec![none; cpus])?, 0)?;
        let zero = Counters { packets: [[0; Reason::COUNT]; 2] };
        let mut counters: PerCpuArray<_, Counters> = PerCpuArray::try_from(self.map(map::COUNTERS)?)?;
        for slot in 0..counters.len() {
            counters.set(slot, PerCpuValues::try_from(vec![zero; cpus])?, 0)?;
        }
        self.events().map(drop)
    }

    /// What the counted programs have asked of their maps since the last call.
    ///
    /// # Errors
    /// The programs don't count.
    pub fn operations(&mut self) -> Result<Operations> {
        let mut counts: Array<_, u64> = Array::try_from(self.map("OPERATIONS")?)?;
        let mut numbers = [0; 5];
        for (index, number) in (0..).zip(&mut numbers) {
            *number = counts.get(&index, 0)?;
            counts.set(index, 0, 0)?;
        }
        let [look_ups, insertions, removals, trie_look_ups, events] = numbers;
        Ok(Operations { look_ups, insertions, removals, trie_look_ups, events })
    }

    /// What the program reported since the last call.
    ///
    /// # Errors
    /// A record has another length than an event.
    pub fn events(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        while let Some(item) = self.events.next() {
            events.push(event(&item)?);
        }
        Ok(events)
    }

    /// All entries of `FLOWS` or `OPENINGS`.
    ///
    /// # Errors
    /// The object has no such map.
    pub fn flows(&mut self, name: &str) -> Result<Vec<(FlowKey, FlowValue)>> {
        Ok(self.hash(name)?.iter().collect::<Result<_, _>>()?)
    }

    /// Lets all flows and fragments be older by `seconds` than they are.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn age(&mut self, seconds: u64) -> Result<()> {
        // both clocks are cut to 32 bits and wrap
        let jiffies = u32::try_from((seconds * self.settings.hz) & 0xffff_ffff).expect("it was cut to 32 bits");
        for name in [map::FLOWS, map::OPENINGS] {
            let flows = self.flows(name)?;
            let mut map = self.hash::<FlowKey, FlowValue>(name)?;
            for (key, mut value) in flows {
                value.last_seen = value.last_seen.wrapping_sub(jiffies);
                map.insert(key, value, 0)?;
            }
        }
        let mut map = self.hash::<FragmentKey, FragmentValue>(map::FRAGMENTS)?;
        let fragments: Vec<_> = map.iter().collect::<Result<_, _>>()?;
        for (key, mut value) in fragments {
            value.seen = value.seen.wrapping_sub(jiffies);
            map.insert(key, value, 0)?;
        }
        Ok(())
    }

    /// Removes all entries of a hash map, as an LRU map under pressure would.
    ///
    /// # Errors
    /// The object has no such map.
    pub fn evict<K: Pod, V: Pod>(&mut self, name: &str) -> Result<()> {
        let mut map = self.hash::<K, V>(name)?;
        let keys: Vec<K> = map.keys().collect::<Result<_, _>>()?;
        for key in keys {
            map.remove(&key)?;
        }
        Ok(())
    }
}

/// The object under test: this build's, or the file that `SLUICE_OBJECT` names. That is how a program that was broken on
/// purpose is held against the cases.
fn object() -> Result<Cow<'static, [u8]>> {
    match env::var_os("SLUICE_OBJECT") {
        Some(path) => Ok(fs::read(&path).with_context(|| path.display().to_string())?.into()),
        None => Ok(enforcer::OBJECT.into()),
    }
}

/// What this thread has had of the processor: elapsed time would tell how busy the machine is.
fn processor_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).context("asking for the time on the processor")?;
    let [user, system] = [usage.user_time(), usage.system_time()].map(|time| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(micros.unsigned_abs())
    });
    Ok(user + system)
}

/// `bpf_jiffies64` and `bpf_ktime_get_ns` of one moment.
/// The object with small maps, for the clock.
fn clock_object() -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    for (name, small) in SMALL {
        loader.map_max_entries(name, small);
    }
    loader.load(&object()?).context("loading the packet program")
}

fn clock(ebpf: &mut Ebpf) -> Result<&SchedClassifier> {
    let clock: &mut SchedClassifier =
        ebpf.program_mut(map::CLOCK).context("the object has no program for the clock")?.try_into()?;
    clock.load().context("the kernel refuses the clock program")?;
    Ok(clock)
}

fn clock_run(clock: &SchedClassifier) -> Result<(u64, u64)> {
    let mut out = [0; 64];
    clock
        .test_run(TestRunOptions { data_in: Some(&[0; 64]), data_out: Some(&mut out), ..TestRunOptions::default() })
        .context("a test run of the clock")?;
    Ok((u64::from_ne_bytes(part(&out, 0)), u64::from_ne_bytes(part(&out, 8))))
}

//! The bench object: the driver, the empty program and the bare primitives with their maps. Entry point: [`Bare`].

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, MapData, ProgramArray, RingBuf, lpm_trie::Key},
    programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions},
};
use e2e::packets::program::Context;
use enforcer_abi::{Address, ClassId, FlowKey, FlowValue, PeerValue};

/// The program to be measured, by its name in `enforcer-ebpf/src/bench.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Primitive {
    Empty,
    Parse,
    Hash,
    Lpm,
    Lru,
    LruInsert,
    Ring,
}

impl Primitive {
    const ALL: [Self; 7] = [Self::Empty, Self::Parse, Self::Hash, Self::Lpm, Self::Lru, Self::LruInsert, Self::Ring];

    const fn program(self) -> &'static str {
        match self {
            Self::Empty => "bench_empty",
            Self::Parse => "bench_parse",
            Self::Hash => "bench_hash",
            Self::Lpm => "bench_lpm",
            Self::Lru => "bench_lru",
            Self::LruInsert => "bench_lru_insert",
            Self::Ring => "bench_ring",
        }
    }
}

/// Which keys the driver writes into the packet; see `Plan` in `enforcer-ebpf/src/bench.rs`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) keys: u64,
    pub(crate) addresses: u64,
    pub(crate) first: u32,
    pub(crate) step: u64,
    /// Every key once before one comes again, not at random.
    pub(crate) unique: bool,
}

/// 2^32 divided by the golden ratio; it is a prime.
const STRIDE: u64 = 2_654_435_761;

/// How often a packet is repeated: all runs' repetitions are different keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) runs: u32,
    pub(crate) repeat: u32,
}

impl Effort {
    /// For programs that report nothing.
    pub(crate) const USUAL: Self = Self { runs: 11, repeat: 200_000 };
    /// For programs that fill a ring buffer of 1 MiB, which is emptied after each run.
    pub(crate) const RING: Self = Self { runs: 60, repeat: 8_000 };
}

/// The loaded bench object.
pub(crate) struct Bare {
    ebpf: Ebpf,
    ring: RingBuf<MapData>,
    sequence: u32,
}

impl Bare {
    /// Loads it, with maps of the sizes of the program's.
    pub(crate) fn load(peers: u32, flows: u32, openings: u32) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("BARE_HASH", peers)
            .map_max_entries("BARE_LRU", flows)
            .map_max_entries("BARE_OPENINGS", openings)
            .load(enforcer::BENCH_OBJECT)
            .context("loading the bench programs")?;
        for (name, program) in ebpf.programs_mut() {
            let program: &mut SchedClassifier = program.try_into()?;
            program.load().with_context(|| format!("the kernel refuses {name}"))?;
        }
        let ring = RingBuf::try_from(ebpf.take_map("BARE_RING").context("no BARE_RING")?)?;
        Ok(Self { ebpf, ring, sequence: 0 })
    }

    pub(crate) fn peers(&mut self) -> Result<HashMap<&mut MapData, Address, PeerValue>> {
        Ok(HashMap::try_from(self.ebpf.map_mut("BARE_HASH").context("no BARE_HASH")?)?)
    }

    pub(crate) fn flows(&mut self) -> Result<HashMap<&mut MapData, FlowKey, FlowValue>> {
        Ok(HashMap::try_from(self.ebpf.map_mut("BARE_LRU").context("no BARE_LRU")?)?)
    }

    pub(crate) fn put_block(&mut self, prefix: u32, address: Address, class: ClassId) -> Result<()> {
        let mut trie: LpmTrie<_, Address, ClassId> =
            LpmTrie::try_from(self.ebpf.map_mut("BARE_LPM").context("no BARE_LPM")?)?;
        Ok(trie.insert(&Key::new(prefix, address), class, 0)?)
    }

    /// The driver's keys from now on.
    pub(crate) fn plan(&mut self, plan: Plan) -> Result<()> {
        let stride = if plan.unique { STRIDE } else { 0 };
        let words = [plan.keys, plan.addresses, plan.first.into(), plan.step, stride];
        let mut map: Array<_, [u64; 5]> = Array::try_from(self.ebpf.map_mut("PLAN").context("no PLAN")?)?;
        Ok(map.set(0, words, 0)?)
    }

    /// The median of the runs' means, of one of the bare programs.
    pub(crate) fn time_bare(&mut self, primitive: Primitive, frame: &[u8], context: Context) -> Result<f64> {
        let program: &SchedClassifier = self
            .ebpf
            .program(primitive.program())
            .with_context(|| format!("no {}", primitive.program()))?
            .try_into()?;
        let fd = program.fd()?.try_clone()?;
        let effort = if primitive == Primitive::Ring { Effort::RING } else { Effort::USUAL };
        self.time(&fd, frame, context, effort, |bare| {
            while bare.ring.next().is_some() {}
            Ok(())
        })
    }

    /// The median of the runs' means, in nanoseconds, driver included. `after` is called after each run.
    pub(crate) fn time(
        &mut self,
        program: &ProgramFd,
        frame: &[u8],
        context: Context,
        effort: Effort,
        mut after: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<f64> {
        let mut target = ProgramArray::try_from(self.ebpf.map_mut("TARGET").context("no TARGET")?)?;
        target.set(0, program, 0).context("the driver can't call the program")?;
        let mut times = Vec::new();
        // the first run warms caches and fills maps
        for run in 0..=effort.runs {
            let duration = self.drive(frame, Context { cb: self.sequence, ..context }, effort.repeat)?;
            self.sequence = self.sequence.wrapping_add(effort.repeat);
            after(self)?;
            if run > 0 {
                times.push(u32::try_from(duration.as_nanos())?);
            }
        }
        times.sort_unstable();
        Ok(f64::from(times[times.len() / 2]))
    }

    fn drive(&self, frame: &[u8], context: Context, repeat: u32) -> Result<Duration> {
        let driver: &SchedClassifier = self.ebpf.program("bench_drive").context("no bench_drive")?.try_into()?;
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context.bytes()),
            repeat,
            ..TestRunOptions::default()
        };
        let result = driver.test_run(options)?;
        // 0 is what the bench programs answer where they did not do what is to be measured
        ensure!(result.return_value != 0, "the last repetition did not find what it looked for");
        Ok(result.duration)
    }

    /// Every primitive by its time net of the empty program, all with the same keys.
    pub(crate) fn primitives(
        &mut self,
        frame: &[u8],
        context: Context,
        of: &[Primitive],
    ) -> Result<Vec<(Primitive, f64)>> {
        let empty = self.time_bare(Primitive::Empty, frame, context)?;
        let wanted = Primitive::ALL.into_iter().filter(|primitive| of.contains(primitive));
        wanted.map(|primitive| Ok((primitive, self.time_bare(primitive, frame, context)? - empty))).collect()
    }
}

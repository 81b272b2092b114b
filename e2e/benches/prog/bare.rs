//! The bench object: the driver, the empty program and the bare primitives with their maps. Entry point: [`Bare`].

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, MapData, ProgramArray, RingBuf, lpm_trie::Key},
    programs::{ProgramFd, SchedClassifier, TestRun as _, TestRunOptions},
};
use e2e::packets::program::Context;
use enforcer_abi::{Address, ClassId, FlowKey, FlowValue, PeerValue};

/// The program to be measured, by its name in `enforcer-ebpf/src/bench.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Primitive {
    Empty,
    Parse,
    Hash,
    Lpm,
    Lru,
    /// A look-up in the flows that finds none.
    NoFlow,
    /// A look-up in the openings, which are full, that finds none.
    NoOpening,
    LruInsert,
    Ring,
}

impl Primitive {
    const fn program(self) -> &'static str {
        match self {
            Self::Empty => "bench_empty",
            Self::Parse => "bench_parse",
            Self::Hash => "bench_hash",
            Self::Lpm => "bench_lpm",
            Self::Lru => "bench_lru",
            Self::NoFlow => "bench_no_flow",
            Self::NoOpening => "bench_no_opening",
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

/// How often a packet is repeated in each round: all repetitions are different keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) runs: u32,
    pub(crate) repeat: u32,
}

impl Effort {
    /// For programs that report nothing.
    pub(crate) const USUAL: Self = Self { runs: 1, repeat: 200_000 };
    /// For programs that fill a ring buffer of 1 MiB, which is emptied after each run.
    pub(crate) const RING: Self = Self { runs: 10, repeat: 8_000 };
}

/// So often each contender has its turn.
const ROUNDS: u32 = 12;

/// A program to be measured, and what it is given.
pub(crate) struct Contender<'a> {
    pub(crate) program: ProgramFd,
    pub(crate) frame: &'a [u8],
    pub(crate) context: Context,
    pub(crate) plan: Plan,
    pub(crate) effort: Effort,
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

    /// One of the bare programs.
    pub(crate) fn program(&self, primitive: Primitive) -> Result<ProgramFd> {
        let name = primitive.program();
        let program: &SchedClassifier = self.ebpf.program(name).with_context(|| format!("no {name}"))?.try_into()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// The shortest of each contender's mean times, in nanoseconds, driver included. They take turns, so that what else
    /// the machine does meanwhile hits them alike. `after` is called after each run.
    pub(crate) fn race(
        &mut self,
        contenders: &[Contender<'_>],
        mut after: impl FnMut() -> Result<()>,
    ) -> Result<Vec<f64>> {
        let mut shortest = vec![u32::MAX; contenders.len()];
        // the first round warms caches and fills maps
        for round in 0..=ROUNDS {
            for (contender, shortest) in contenders.iter().zip(&mut shortest) {
                self.call(contender)?;
                for _ in 0..contender.effort.runs {
                    let context = Context { cb: self.sequence, ..contender.context };
                    let duration = self.drive(contender.frame, context, contender.effort.repeat)?;
                    self.sequence = self.sequence.wrapping_add(contender.effort.repeat);
                    while self.ring.next().is_some() {}
                    after()?;
                    if round > 0 {
                        *shortest = (*shortest).min(u32::try_from(duration.as_nanos())?);
                    }
                }
            }
        }
        Ok(shortest.into_iter().map(f64::from).collect())
    }

    /// A contender's mean time in nanoseconds, driver included, over at least this long.
    pub(crate) fn mean(&mut self, contender: &Contender<'_>, at_least: Duration) -> Result<f64> {
        self.call(contender)?;
        let begin = Instant::now();
        let (mut sum, mut runs) = (Duration::ZERO, 0);
        while begin.elapsed() < at_least {
            let context = Context { cb: self.sequence, ..contender.context };
            sum += self.drive(contender.frame, context, contender.effort.repeat)?;
            self.sequence = self.sequence.wrapping_add(contender.effort.repeat);
            runs += 1;
        }
        Ok(sum.as_secs_f64() * 1e9 / f64::from(runs))
    }

    /// Lets the driver call a contender, with its keys.
    fn call(&mut self, contender: &Contender<'_>) -> Result<()> {
        let mut target = ProgramArray::try_from(self.ebpf.map_mut("TARGET").context("no TARGET")?)?;
        target.set(0, &contender.program, 0).context("the driver can't call the program")?;
        let plan = contender.plan;
        let stride = if plan.unique { STRIDE } else { 0 };
        let words = [plan.keys, plan.addresses, plan.first.into(), plan.step, stride];
        let mut map: Array<_, [u64; 5]> = Array::try_from(self.ebpf.map_mut("PLAN").context("no PLAN")?)?;
        Ok(map.set(0, words, 0)?)
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
}

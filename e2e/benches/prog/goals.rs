//! What is measured and what it is held against: DESIGN section 9. Entry point: [`measure`].

use anyhow::{Context as _, Result, bail};
use aya::programs::ProgramFd;
use e2e::{
    packets::program::{Context, Program, Sizes},
    report::Row,
};
use enforcer_abi::{Direction, Settings, map};

use crate::{
    bare::{Bare, Contender, Effort, Plan, Primitive},
    cluster::{CLASSES, CLOSED, Fill, Kind, OPEN, fill, packet},
    epochs,
};

/// Flows that fit into the table, and openings; both maps of the bare primitives have the same room.
const OPENINGS: u32 = 32_768;
const PEERS: u32 = 131_072;

/// Look-ups that a first packet may need, besides what it inserts or reports and besides the trie (DESIGN section 9), are
/// six: one in the flows and one in the openings, which find nothing, and these.
const HASH_LOOKUPS: f64 = 4.0;

/// What a packet may take, over the operations on maps that it needs: as for the established one.
const LIMIT: f64 = 1.5;

/// How often a second epochs are raised, and what that may cost: throughput within 3 %.
const RATES: [u32; 3] = [0, 10, 100];
const WITHIN: f64 = 1.03;

/// A fill by its name.
struct Scene {
    name: &'static str,
    fill: Fill,
}

const SMALL: Fill = Fill { peers: 100, blocks: 1, flows: 1_000, pods: 1, v4: true, from_blocks: false };
const LARGE: Fill = Fill { peers: 100_000, blocks: 10_000, flows: 100_000, ..SMALL };

const SCENES: [Scene; 8] = [
    Scene { name: "v4/hot", fill: Fill { peers: 1, flows: 1, ..SMALL } },
    Scene { name: "v4/100-peers", fill: SMALL },
    Scene { name: "v4/100k-peers", fill: LARGE },
    Scene { name: "v4/1M-flows", fill: Fill { flows: 1_000_000, ..LARGE } },
    Scene { name: "v4/250-pods", fill: Fill { pods: 250, ..LARGE } },
    Scene { name: "v6/100k-peers", fill: Fill { v4: false, blocks: 0, ..LARGE } },
    Scene { name: "v4/1-block", fill: Fill { from_blocks: true, ..SMALL } },
    Scene { name: "v4/10k-blocks", fill: Fill { from_blocks: true, ..LARGE } },
];

/// The rows of these scenes, or of all, on a kernel of `hz` jiffies a second.
pub(crate) fn measure(hz: u64, names: &[&str]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for scene in SCENES.iter().filter(|scene| names.is_empty() || names.contains(&scene.name)) {
        eprintln!("{} …", scene.name);
        one(scene, hz, &mut rows).with_context(|| scene.name.to_string())?;
    }
    Ok(rows)
}

fn one(scene: &Scene, hz: u64, rows: &mut Vec<Row>) -> Result<()> {
    let flows = scene.fill.flows + scene.fill.flows / 4 + OPENINGS;
    let sizes = Sizes::from([
        (map::PEERS, PEERS),
        (map::BLOCKS, 65_536),
        (map::ROWS, 4096 + scene.fill.pods * CLASSES),
        (map::FLOWS, flows),
        (map::OPENINGS, OPENINGS),
    ]);
    let mut bare = Bare::load(PEERS, flows, OPENINGS)?;
    // a report for each drop, however many there are
    let settings = Settings { event_rate: u64::from(u32::MAX), report_flows: 0, ..Settings::defaults(hz) };
    let mut program = Program::load(settings, &sizes)?;
    fill(&mut program, &mut bare, scene.fill)?;
    if !scene.fill.from_blocks {
        established(scene, &mut bare, &mut program, rows)?;
    }
    if scene.fill.flows > 1 && scene.fill.flows <= 100_000 {
        first_packets(scene, &mut bare, &mut program, rows)?;
    }
    if scene.fill.pods == 1 && (scene.fill.flows == 1_000 || scene.fill.flows == 100_000) && !scene.fill.from_blocks {
        under_epochs(scene, &mut bare, &mut program, rows)?;
    }
    if scene.fill.peers == 100 {
        counts(scene, settings, &sizes, rows)?;
    }
    Ok(())
}

/// Established flows while epochs are raised.
fn under_epochs(scene: &Scene, bare: &mut Bare, program: &mut Program, rows: &mut Vec<Row>) -> Result<()> {
    let (frame, context) = packet(scene.fill.v4, Kind::Tcp)?;
    let given = Given { frame: &frame, context, plan: scene.fill.established() };
    let empty = given.bare(bare, Primitive::Empty)?;
    let [empty] = epochs::raised(bare, program, &empty, &[0])?[..] else { bail!("one rate has one time") };
    let ours = given.program(program, Effort::USUAL)?;
    let times = epochs::raised(bare, program, &ours, &RATES)?;
    for (rate, time) in RATES.iter().zip(&times) {
        let name = format!("established, {rate} epochs a second over {} pods/{}", epochs::PODS, scene.name);
        rows.push(Row::goal(name, time - empty, times[0] - empty, "no epoch raised", WITHIN));
    }
    Ok(())
}

/// What a packet asks of the maps, which is the same at every fill.
fn counts(scene: &Scene, settings: Settings, sizes: &Sizes, rows: &mut Vec<Row>) -> Result<()> {
    let mut bare = Bare::load(PEERS, OPENINGS, OPENINGS)?;
    let mut program = Program::load_counted(settings, sizes)?;
    fill(&mut program, &mut bare, scene.fill)?;
    for (name, port) in [("new", OPEN), ("denied", CLOSED)] {
        let (mut frame, context) = packet(scene.fill.v4, Kind::Udp(port))?;
        let plan = scene.fill.new_flows();
        frame[26..30].copy_from_slice(&plan.first.to_be_bytes());
        program.operations()?;
        program.run(Direction::Ingress, &frame, context)?;
        let cost = program.operations()?;
        let is_new = u64::from(port == OPEN);
        let parts = [
            ("hash look-ups", cost.look_ups, 6),
            ("lru insertions", cost.insertions, is_new),
            ("ring events", cost.events, 1 - is_new),
            ("lpm look-ups", cost.trie_look_ups, u64::from(scene.fill.from_blocks)),
        ];
        for (unit, value, limit) in parts {
            rows.push(Row::count(format!("{name}, {unit}/{}", scene.name), value, unit, limit)?);
        }
    }
    Ok(())
}

fn established(scene: &Scene, bare: &mut Bare, program: &mut Program, rows: &mut Vec<Row>) -> Result<()> {
    let (frame, context) = packet(scene.fill.v4, Kind::Tcp)?;
    let given = Given { frame: &frame, context, plan: scene.fill.established() };
    let contenders = [
        given.bare(bare, Primitive::Empty)?,
        given.bare(bare, Primitive::Parse)?,
        given.bare(bare, Primitive::Lru)?,
        given.program(program, Effort::USUAL)?,
    ];
    let times = bare.race(&contenders, || program.events().map(drop))?;
    let [empty, parse, lru, ours] = times[..] else { bail!("four contenders have four times") };
    rows.push(Row::bare(format!("parse/{}", scene.name), parse - empty));
    rows.push(Row::bare(format!("lru look-up + parse/{}", scene.name), lru - empty));
    let name = format!("established/{}", scene.name);
    rows.push(Row::goal(name, ours - empty, lru - empty, "lru look-up + parse", 1.5));
    Ok(())
}

fn first_packets(scene: &Scene, bare: &mut Bare, program: &mut Program, rows: &mut Vec<Row>) -> Result<()> {
    let (open, context) = packet(scene.fill.v4, Kind::Udp(OPEN))?;
    let (closed, _) = packet(scene.fill.v4, Kind::Udp(CLOSED))?;
    let given = Given { frame: &open, context, plan: scene.fill.new_flows() };
    // Hash look-ups are measured by keys that are there: in a scene of blocks those of the peers.
    let peers = Given { plan: Fill { from_blocks: false, ..scene.fill }.new_flows(), ..given };
    let trie = if scene.fill.from_blocks { Primitive::Lpm } else { Primitive::Parse };
    let contenders = [
        given.bare(bare, Primitive::Empty)?,
        given.bare(bare, Primitive::Parse)?,
        peers.bare(bare, Primitive::Parse)?,
        peers.bare(bare, Primitive::Hash)?,
        given.bare(bare, trie)?,
        given.bare(bare, Primitive::LruInsert)?,
        given.bare(bare, Primitive::NoFlow)?,
        given.bare(bare, Primitive::NoOpening)?,
        given.bare(bare, Primitive::Ring)?,
        given.program(program, Effort::USUAL)?,
        Given { frame: &closed, ..given }.program(program, Effort::RING)?,
    ];
    let times = bare.race(&contenders, || program.events().map(drop))?;
    let [empty, parse, peers, hash, trie, insertion, no_flow, no_opening, ring, new, denied] = times[..] else {
        bail!("eleven contenders have eleven times")
    };
    let (hash, trie, insertion, ring) = (hash - peers, trie - parse, insertion - parse, ring - parse);
    let (no_flow, no_opening) = (no_flow - parse, no_opening - parse);
    let primitives = [
        ("hash look-up", hash),
        ("look-up of no flow", no_flow),
        ("look-up of no opening", no_opening),
        ("lpm look-up", trie),
        ("lru insertion", insertion),
        ("ring event", ring),
    ];
    for (name, value) in primitives {
        if name != "lpm look-up" || scene.fill.from_blocks {
            rows.push(Row::bare(format!("{name}/{}", scene.name), value));
        }
    }
    let with_trie = if scene.fill.from_blocks { " + lpm look-up" } else { "" };
    for (name, value, last, last_name) in
        [("new", new, insertion, "lru insertion"), ("denied", denied, ring, "ring event")]
    {
        let bound = HASH_LOOKUPS * hash + no_flow + no_opening + last + trie + parse - empty;
        let against = format!("6 look-ups + {last_name}{with_trie} + parse");
        rows.push(Row::goal(format!("{name}/{}", scene.name), value - empty, bound, &against, LIMIT));
    }
    Ok(())
}

/// What a contender is given.
#[derive(Clone, Copy)]
struct Given<'a> {
    frame: &'a [u8],
    context: Context,
    plan: Plan,
}

impl<'a> Given<'a> {
    fn bare(self, bare: &Bare, primitive: Primitive) -> Result<Contender<'a>> {
        let effort = if primitive == Primitive::Ring { Effort::RING } else { Effort::USUAL };
        Ok(self.contender(bare.program(primitive)?, effort))
    }

    fn program(self, program: &Program, effort: Effort) -> Result<Contender<'a>> {
        Ok(self.contender(program.classifier(Direction::Ingress)?.fd()?.try_clone()?, effort))
    }

    const fn contender(self, program: ProgramFd, effort: Effort) -> Contender<'a> {
        Contender { program, frame: self.frame, context: self.context, plan: self.plan, effort }
    }
}

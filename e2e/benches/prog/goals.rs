//! What is measured and what it is held against: DESIGN section 9. Entry point: [`measure`].

use anyhow::{Context as _, Result};
use e2e::packets::program::{Context, Program, Sizes};
use enforcer_abi::{Direction, Settings, map};

use crate::{
    bare::{Bare, Effort, Primitive},
    cluster::{CLOSED, Fill, Kind, OPEN, fill, packet},
    report::Row,
};

/// Flows that fit into the table, and openings; both maps of the bare primitives have the same room.
const OPENINGS: u32 = 32_768;
const PEERS: u32 = 131_072;

/// Look-ups that a first packet may need, besides what it inserts or reports and besides the trie (DESIGN section 9).
const HASH_LOOKUPS: f64 = 6.0;

/// A fill by its name.
struct Scene {
    name: &'static str,
    fill: Fill,
}

const SMALL: Fill = Fill { peers: 100, blocks: 1, flows: 1_000, v4: true, from_blocks: false };
const LARGE: Fill = Fill { peers: 100_000, blocks: 10_000, flows: 100_000, v4: true, from_blocks: false };

const SCENES: [Scene; 7] = [
    Scene { name: "v4/hot", fill: Fill { peers: 1, flows: 1, ..SMALL } },
    Scene { name: "v4/100-peers", fill: SMALL },
    Scene { name: "v4/100k-peers", fill: LARGE },
    Scene { name: "v4/1M-flows", fill: Fill { flows: 1_000_000, ..LARGE } },
    Scene { name: "v6/100k-peers", fill: Fill { v4: false, blocks: 0, ..LARGE } },
    Scene { name: "v4/1-block", fill: Fill { from_blocks: true, ..SMALL } },
    Scene { name: "v4/10k-blocks", fill: Fill { from_blocks: true, ..LARGE } },
];

/// All rows, on a kernel of `hz` jiffies a second.
pub(crate) fn measure(hz: u64) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for scene in SCENES {
        eprintln!("{} …", scene.name);
        one(&scene, hz, &mut rows).with_context(|| scene.name.to_string())?;
    }
    Ok(rows)
}

fn one(scene: &Scene, hz: u64, rows: &mut Vec<Row>) -> Result<()> {
    let flows = scene.fill.flows + scene.fill.flows / 4 + OPENINGS;
    let sizes =
        Sizes::from([(map::PEERS, PEERS), (map::BLOCKS, 65_536), (map::FLOWS, flows), (map::OPENINGS, OPENINGS)]);
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
    Ok(())
}

fn established(scene: &Scene, bare: &mut Bare, program: &mut Program, rows: &mut Vec<Row>) -> Result<()> {
    let (frame, context) = packet(scene.fill.v4, Kind::Tcp)?;
    bare.plan(scene.fill.established())?;
    let of = [Primitive::Empty, Primitive::Parse, Primitive::Lru];
    let (empty, times) = bare_times(bare, &frame, context, &of)?;
    let lru = times(Primitive::Lru)?;
    let value = program_time(bare, program, &frame, context, Effort::USUAL)? - empty;
    rows.push(Row::bare(format!("parse/{}", scene.name), times(Primitive::Parse)?));
    rows.push(Row::bare(format!("lru look-up + parse/{}", scene.name), lru));
    rows.push(Row::goal(format!("established/{}", scene.name), value, lru, "lru look-up + parse", 1.5));
    Ok(())
}

fn first_packets(scene: &Scene, bare: &mut Bare, program: &mut Program, rows: &mut Vec<Row>) -> Result<()> {
    let (frame, context) = packet(scene.fill.v4, Kind::Udp(OPEN))?;
    bare.plan(scene.fill.new_flows())?;
    let lookup = if scene.fill.from_blocks { Primitive::Lpm } else { Primitive::Hash };
    let (empty, times) = bare_times(
        bare,
        &frame,
        context,
        &[Primitive::Empty, Primitive::Parse, lookup, Primitive::LruInsert, Primitive::Ring],
    )?;
    let parse = times(Primitive::Parse)?;
    // Hash look-ups are measured by keys that are there: in a scene of blocks those of the peers.
    let hash = if scene.fill.from_blocks { hash_of_peers(scene, bare)? } else { times(Primitive::Hash)? - parse };
    let trie = if scene.fill.from_blocks { times(Primitive::Lpm)? - parse } else { 0.0 };
    let insertion = times(Primitive::LruInsert)? - parse;
    let ring = times(Primitive::Ring)? - parse;
    for (name, value) in [("hash look-up", hash), ("lru insertion", insertion), ("ring event", ring)] {
        rows.push(Row::bare(format!("{name}/{}", scene.name), value));
    }
    if scene.fill.from_blocks {
        rows.push(Row::bare(format!("lpm look-up/{}", scene.name), trie));
    }
    bare.plan(scene.fill.new_flows())?;
    let against = |last: &str| {
        let trie = if scene.fill.from_blocks { " + lpm look-up" } else { "" };
        format!("6 hash look-ups + {last}{trie} + parse")
    };
    let new = program_time(bare, program, &frame, context, Effort::USUAL)? - empty;
    let bound = HASH_LOOKUPS * hash + insertion + trie + parse;
    rows.push(Row::goal(format!("new/{}", scene.name), new, bound, &against("lru insertion"), 1.0));
    let (frame, context) = packet(scene.fill.v4, Kind::Udp(CLOSED))?;
    let denied = program_time(bare, program, &frame, context, Effort::RING)? - empty;
    let bound = HASH_LOOKUPS * hash + ring + trie + parse;
    rows.push(Row::goal(format!("denied/{}", scene.name), denied, bound, &against("ring event"), 1.0));
    Ok(())
}

/// A hash look-up without parsing, by the addresses of the peers.
fn hash_of_peers(scene: &Scene, bare: &mut Bare) -> Result<f64> {
    let (frame, context) = packet(scene.fill.v4, Kind::Udp(OPEN))?;
    bare.plan(Fill { from_blocks: false, ..scene.fill }.new_flows())?;
    let (_, times) = bare_times(bare, &frame, context, &[Primitive::Empty, Primitive::Parse, Primitive::Hash])?;
    Ok(times(Primitive::Hash)? - times(Primitive::Parse)?)
}

/// The empty program's time, and those of primitives net of it.
fn bare_times(
    bare: &mut Bare,
    frame: &[u8],
    context: Context,
    of: &[Primitive],
) -> Result<(f64, impl Fn(Primitive) -> Result<f64> + use<>)> {
    let empty = bare.time_bare(Primitive::Empty, frame, context)?;
    let times = bare.primitives(frame, context, of)?;
    let time = move |wanted: Primitive| {
        let found = times.iter().find(|(primitive, _)| *primitive == wanted);
        found.map(|(_, time)| *time).with_context(|| format!("{wanted:?} was not measured"))
    };
    Ok((empty, time))
}

/// The packet program's time, driver included.
fn program_time(bare: &mut Bare, program: &mut Program, frame: &[u8], context: Context, effort: Effort) -> Result<f64> {
    let fd = program.classifier(Direction::Ingress)?.fd()?.try_clone()?;
    bare.time(&fd, frame, context, effort, |_| program.events().map(drop))
}

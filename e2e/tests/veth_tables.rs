//! Class `veth`: real traffic past the enforcer with what the agent has no use for: clsact filters on a kernel that has TCX,
//! and tables of a few flows.
#![forbid(unsafe_code)]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{Fabric, Node, Outcome, Pod, Scratch, Server, Transport, Wiring, is_root, probe};
use enforcer::{Clock, Enforcer, Hooks, MapSizes, Mode, Options};
use enforcer_abi::{Address, Op, PodEntry, PodFlags, PortKey, PortValue, protocol};

const PORT: u16 = 8080;
const OTHER_PORT: u16 = 8081;
/// Room for so many flows of each kind.
const FEW: u32 = 128;
const SILENCE: Duration = Duration::from_millis(300);

/// A node without an agent: one pod is enforced, the other not.
struct Bed {
    enforcer: Enforcer,
    pod: Pod,
    other: Pod,
    node: Node,
    _fabric: Fabric,
    _scratch: Scratch,
}

impl Bed {
    /// `entry` begins as that of a pod that nothing isolates.
    fn create(hooks: Hooks, entry: impl FnOnce(&mut PodEntry) + Send) -> Result<Self> {
        let fabric = Fabric::create()?;
        let node = fabric.node("n1", 1, Wiring::PointToPoint)?;
        let (pod, other) = (node.pod("pod")?, node.pod("other")?);
        let scratch = Scratch::create("tables")?;
        let sizes = MapSizes { flows: FEW, openings: FEW, ..MapSizes::default() };
        let options = Options { hooks, sizes, ..Options::new(scratch.pins(), Clock::measure()?) };
        let enforcer = node.namespace().run(|| {
            let mut enforcer = Enforcer::open(&options)?;
            let mut own = PodEntry {
                ifindex: pod.host_index(),
                flags: 0,
                ingress_table: 0,
                egress_table: 0,
                midstream_until: 0,
                v4: pod.v4().map_or(Address::NONE, Address::from),
                v6: pod.v6().map_or(Address::NONE, Address::from),
                slot: 0,
                ingress_everybody: 0,
                egress_everybody: 0,
                reserved: [0; 2],
            };
            entry(&mut own);
            enforcer.put_pod(own)?;
            let attachment = enforcer.attach(pod.host_index())?;
            let expected = if hooks == Hooks::Clsact { Mode::Clsact } else { attachment.mode };
            ensure!(attachment.mode == expected, "attached by {:?}", attachment.mode);
            Ok(enforcer)
        })?;
        Ok(Self { enforcer, pod, other, node, _fabric: fabric, _scratch: scratch })
    }

    fn with<T: Send>(&mut self, work: impl FnOnce(&mut Enforcer) -> Result<T> + Send) -> Result<T> {
        let enforcer = &mut self.enforcer;
        self.node.namespace().run(|| work(enforcer))
    }

    /// Whether the pod's flow to this end is remembered, and how many flows are.
    fn remembers(&mut self, pod_port: u16, remote: SocketAddr) -> Result<(bool, usize)> {
        self.with(|enforcer| {
            let flows = enforcer.flows()?;
            let is_it = |flow: &enforcer::Flow| {
                (flow.key.pod_port, flow.key.remote_port, flow.key.remote, flow.key.protocol)
                    == (pod_port, remote.port(), remote.ip().into(), protocol::TCP)
            };
            Ok((flows.iter().any(is_it), flows.len()))
        })
    }
}

fn entitled() -> bool {
    if !is_root() {
        eprintln!("skipped: needs root");
    }
    is_root()
}

#[test]
fn clsact_filters_enforce_both_directions() -> Result<()> {
    const INGRESS: u64 = 7;
    const EGRESS: u64 = 9;
    if !entitled() {
        return Ok(());
    }
    let mut bed = Bed::create(Hooks::Clsact, |entry| {
        entry.flags = PodFlags::INGRESS_ISOLATED | PodFlags::EGRESS_ISOLATED;
        (entry.ingress_table, entry.egress_table) = (INGRESS, EGRESS);
    })?;
    let open = |table, port| {
        let key = PortKey { table, port, protocol: protocol::TCP, reserved: [0; 5] };
        Op::PutPort(PortValue { key, class: 1, everybody: 1 })
    };
    bed.with(|enforcer| Ok(enforcer.apply(&[open(INGRESS, PORT), open(EGRESS, OTHER_PORT)])?))?;
    let ports = [(Transport::Tcp, PORT), (Transport::Tcp, OTHER_PORT)];
    let _servers =
        [Server::start(bed.pod.namespace(), "pod", &ports)?, Server::start(bed.other.namespace(), "other", &ports)?];
    for enforced in [true, false] {
        if !enforced {
            let index = bed.pod.host_index();
            bed.with(|enforcer| Ok(enforcer.detach(index)?))?;
        }
        let closed = if enforced { Outcome::Dropped } else { Outcome::Open };
        for family in [0, 1] {
            let [own, remote] = [&bed.pod, &bed.other].map(|pod| pod.addresses()[family]);
            for (from, to, port, expected) in [
                (&bed.other, own, PORT, Outcome::Open),
                (&bed.other, own, OTHER_PORT, closed),
                (&bed.pod, remote, OTHER_PORT, Outcome::Open),
                (&bed.pod, remote, PORT, closed),
            ] {
                let answer = probe(from.namespace(), Transport::Tcp, SocketAddr::new(to, port), expected)?;
                assert_eq!(answer.outcome, expected, "{} to {to}:{port}, enforced: {enforced}", from.name());
            }
        }
    }
    Ok(())
}

/// What an overflow costs: a segment from outside without a flow is dropped; the pod's own next one brings the
/// connection back. And what it doesn't: nothing becomes open.
#[test]
fn overflowing_tables_open_nothing_and_the_pods_own_segment_resumes() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let mut bed = Bed::create(Hooks::Auto, |entry| {
        (entry.flags, entry.ingress_table) = (PodFlags::INGRESS_ISOLATED, 7);
    })?;
    let _echo = Server::start(bed.other.namespace(), "other", &[(Transport::Udp, PORT)])?;
    let _listens = Server::start(bed.pod.namespace(), "pod", &[(Transport::Tcp, PORT), (Transport::Udp, PORT)])?;
    for family in [0, 1] {
        let [own, remote] = [&bed.pod, &bed.other].map(|pod| pod.addresses()[family]);
        let to = SocketAddr::new(remote, OTHER_PORT);
        let listener = bed.other.namespace().run(|| TcpListener::bind(to).context("cannot listen"))?;
        let mut ours = bed.pod.connect(to, Duration::from_secs(2))?;
        let (mut theirs, _) = listener.accept().context("cannot accept")?;
        say(&mut theirs, &mut ours, b"hello")?;
        let port = ours.local_addr().context("a socket has an address")?.port();
        assert!(bed.remembers(port, to)?.0, "{to}: an established connection is remembered");

        // The kernel gives up the least recently used ones of a sample, so it may take a while.
        let (mut is_there, mut count) = (true, 0);
        for _ in 0..50 {
            flood(&bed.pod, SocketAddr::new(remote, PORT))?;
            (is_there, count) = bed.remembers(port, to)?;
            if !is_there {
                break;
            }
        }
        assert!(!is_there, "{to}: the flood has not evicted it; {count} flows are remembered");
        assert!(count <= 2 * FEW as usize, "{count} flows in tables of {FEW}");

        for (transport, port) in [(Transport::Tcp, PORT), (Transport::Udp, PORT), (Transport::Icmp, 0)] {
            let answer = probe(bed.other.namespace(), transport, SocketAddr::new(own, port), Outcome::Dropped)?;
            assert_eq!(answer.outcome, Outcome::Dropped, "{own}: {transport} is as closed as before");
        }
        theirs.write_all(b"late").context("cannot send")?;
        assert!(!arrives(&mut ours, b"late", SILENCE)?, "{to}: a segment without a flow has come in");
        say(&mut ours, &mut theirs, b"I was here")?;
        assert!(arrives(&mut ours, b"late", Duration::from_secs(10))?, "{to}: the connection has not come back");
        say(&mut theirs, &mut ours, b"good")?;
    }
    Ok(())
}

/// More flows than there is room for: some answered, some not.
fn flood(from: &Pod, to: SocketAddr) -> Result<()> {
    let own = SocketAddr::new(from.addresses()[usize::from(to.is_ipv6())], 0);
    from.namespace().run(|| {
        let mut answer = [0; 64];
        for number in 0..8 * FEW {
            let socket = UdpSocket::bind(own).context("cannot bind")?;
            socket.set_read_timeout(Some(Duration::from_secs(2))).context("cannot set a time-out")?;
            socket.send_to(b"?", to).context("cannot send")?;
            socket.recv(&mut answer).with_context(|| format!("flow {number} is not answered"))?;
            let deaf = SocketAddr::new(to.ip(), u16::try_from(20_000 + number).context("a port")?);
            socket.send_to(b"?", deaf).context("cannot send")?;
        }
        Ok(())
    })
}

fn say(from: &mut TcpStream, to: &mut TcpStream, words: &[u8]) -> Result<()> {
    from.write_all(words).context("cannot send")?;
    ensure!(arrives(to, words, Duration::from_secs(10))?, "{} does not arrive", String::from_utf8_lossy(words));
    Ok(())
}

/// Whether exactly this comes next, or nothing does in time.
fn arrives(at: &mut TcpStream, words: &[u8], patience: Duration) -> Result<bool> {
    at.set_read_timeout(Some(patience)).context("cannot set a time-out")?;
    let mut buffer = vec![0; words.len()];
    match at.read_exact(&mut buffer) {
        Ok(()) => {
            ensure!(buffer == words, "{:?} arrives", String::from_utf8_lossy(&buffer));
            Ok(true)
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
        Err(error) => Err(error).context("cannot receive"),
    }
}

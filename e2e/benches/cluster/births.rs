//! Pods' starts: how long after the API server has a pod's address its first packet arrives where policies let it, and
//! whether one ever arrives where they don't. Entry point: [`measure`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use e2e::{
    lab::{
        BUSYBOX, Lab, OUTSIDE_V4, OUTSIDE_V6, Pod,
        api::{Api, Watch},
    },
    moment::Moment,
    report::Row,
    wait::until,
};
use nix::{
    sys::socket::{AddressFamily, SockProtocol},
    unistd::gettid,
};
use serde_json::{Value, json};

use crate::{
    agents::Agents,
    changes::milliseconds,
    ear::Ear,
    priority,
    stage::{Stage, pod, policy, v4},
};

/// From one packet of a pod to a target to the next.
const PERIOD: Duration = Duration::from_millis(5);
/// As many packets of each pod are awaited.
const ENOUGH: u64 = 100;
/// The longest that a batch may take to start, and to go.
const PATIENCE: Duration = Duration::from_secs(180);

/// How many pods are started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// At least, under policies.
    pub(crate) pods: usize,
    /// Side by side, of which one is under no policy.
    pub(crate) at_a_time: usize,
}

/// What pods' starts have shown.
#[derive(Default)]
struct Outcome {
    same: Times,
    other: Times,
    pods: usize,
    leaked: u64,
}

/// Times of pods' first packets to servers on their own node, or on another.
#[derive(Default)]
struct Times {
    /// From the address at the API server to the arrival, however long the pod did not send.
    since_address: Vec<Duration>,
    /// What of that, or of all the time that it sent, it waited.
    waited: Vec<Duration>,
}

/// Starts at least this many pods that send from their first instant, to a server on each node, which their policy
/// allows, and to the outside, which it doesn't.
pub(crate) fn measure(lab: &Lab, api: &Api, agents: &mut Agents<'_>, plan: Plan) -> Result<Vec<Row>> {
    let (servers, born) = (Stage::open(lab, "bench-servers")?, Stage::open(lab, "bench-born")?);
    let shut = json!({"kind": "shut"});
    let of = |namespace: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let from = json!([{"from": [{"namespaceSelector": of(born.name()), "podSelector": {"matchLabels": shut}}]}]);
    servers.apply(&[policy("born", json!({"podSelector": {}, "ingress": from}))])?;
    let to = json!([{"to": [{"namespaceSelector": of(servers.name())}]}]);
    born.apply(&[
        policy("deny", json!({"podSelector": {"matchLabels": shut}, "policyTypes": ["Ingress", "Egress"]})),
        policy("servers", json!({"podSelector": {"matchLabels": shut}, "policyTypes": ["Egress"], "egress": to})),
    ])?;
    let hosts = lab.nodes().iter().map(|node| servers.add(&format!("on-{}", node.name()), node.name(), &json!({})));
    let hosts = hosts.collect::<Result<Vec<Pod>>>()?;
    let ears = Ears::open(lab, &hosts)?;
    let mut watch = api.watch(&born.path("pods"))?;
    let end_watch = watch.end()?;
    let nursery = Nursery { api, born, hosts, ears, seen: Mutex::default() };
    thread::scope(|scope| {
        let watching = scope.spawn(|| nursery.follow(&mut watch));
        let listening = nursery.ears.all.iter().map(|ear| scope.spawn(|| ear.listen(&nursery.ears.done)));
        let listening: Vec<_> = listening.collect();
        let mut work = || {
            let mut outcome = Outcome::default();
            while outcome.pods < plan.pods {
                nursery.batch(&mut outcome, agents, plan.at_a_time).with_context(|| lab.cluster().sluice_log(20))?;
                eprintln!("{} of {} pods, {} packets leaked", outcome.pods, plan.pods, outcome.leaked);
            }
            outcome.report()
        };
        let rows = work();
        nursery.ears.done.store(true, Ordering::Relaxed);
        end_watch();
        for thread in listening.into_iter().chain([watching]) {
            thread.join().map_err(|_| anyhow!("a listening thread panicked"))??;
        }
        rows
    })
}

struct Nursery<'a> {
    api: &'a Api,
    born: Stage<'a>,
    /// The servers, one on each node.
    hosts: Vec<Pod>,
    ears: Ears,
    seen: Mutex<Seen>,
}

/// What the API server says of the pods.
#[derive(Default)]
struct Seen {
    there: BTreeSet<String>,
    /// When a pod first had addresses, and which.
    addresses: BTreeMap<String, (Moment, Vec<IpAddr>)>,
}

impl Nursery<'_> {
    fn follow(&self, watch: &mut Watch) -> Result<()> {
        priority::raise(gettid());
        while let Some((at, event)) = watch.next_event()? {
            let object = &event["object"];
            let name = object["metadata"]["name"].as_str().with_context(|| format!("the watch fails: {event}"))?;
            let mut seen = lock(&self.seen);
            if event["type"] == "DELETED" {
                seen.there.remove(name);
                continue;
            }
            seen.there.insert(name.to_owned());
            let entries = object["status"]["podIPs"].as_array().into_iter().flatten();
            let addresses: Vec<IpAddr> = entries.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect();
            if !addresses.is_empty() {
                seen.addresses.entry(name.to_owned()).or_insert((at, addresses));
            }
        }
        Ok(())
    }

    /// Starts pods, waits until all of them have been heard where they may be, and until they are gone; what of them was
    /// heard where they may not is a leak.
    fn batch(&self, outcome: &mut Outcome, agents: &mut Agents<'_>, size: usize) -> Result<()> {
        self.ears.forget();
        *lock(&self.seen) = Seen::default();
        let names: Vec<(String, usize)> =
            (0..size).map(|n| (format!("born-{}-{n}", outcome.pods), (outcome.pods + n) % self.hosts.len())).collect();
        let (free, shut) = names.split_first().context("a batch is more than nothing")?;
        for (name, host) in &names {
            let kind = if name == &free.0 { "free" } else { "shut" };
            let object = self.sender(name, self.hosts[*host].node(), kind);
            self.api.create(&self.born.path("pods"), &object)?;
        }
        let addresses = self.await_heard(&free.0, shut)?;
        agents.note()?;
        for (name, host) in shut {
            outcome.add(self, &addresses[name], *host)?;
        }
        self.api.delete(&self.born.path("pods"))?;
        self.await_that("pods don't go", || lock(&self.seen).there.is_empty())?;
        let (_, may) = &addresses[&free.0];
        outcome.leaked += self.ears.outside().iter().map(|ear| ear.packets_of_others(may)).sum::<u64>();
        outcome.pods += shut.len();
        Ok(())
    }

    /// Waits until each pod was heard at both servers, and the one under no policy outside: so the outside can be
    /// reached, and all have tried for as long.
    fn await_heard(&self, free: &str, shut: &[(String, usize)]) -> Result<BTreeMap<String, (Moment, Vec<IpAddr>)>> {
        self.await_that("pods get no addresses", || lock(&self.seen).addresses.len() == shut.len() + 1)?;
        let addresses = lock(&self.seen).addresses.clone();
        for (name, _) in shut {
            let from = v4(&addresses[name].1)?;
            for (ear, host) in self.ears.servers().iter().zip(&self.hosts) {
                let what = format!("{name}, {from}, is not heard at {}", host.name());
                self.await_that(&what, || ear.of(from).is_some_and(|heard| heard.count >= ENOUGH))?;
            }
        }
        for (ear, from) in self.ears.outside().iter().zip(&addresses[free].1) {
            let what = format!("{free}, {from}, is under no policy and not heard outside");
            self.await_that(&what, || ear.of(*from).is_some_and(|heard| heard.count >= ENOUGH))?;
        }
        Ok(addresses)
    }

    fn await_that(&self, otherwise: &str, condition: impl Fn() -> bool) -> Result<()> {
        let pause = Duration::from_millis(10);
        until(PATIENCE, pause, || otherwise.to_owned(), || Ok(condition().then_some(())))
    }

    /// A pod that sends from its first instant.
    fn sender(&self, name: &str, node: &str, kind: &str) -> Value {
        let hosts = self.hosts.iter().filter_map(|host| v4(host.addresses()).ok());
        let targets = hosts.chain([OUTSIDE_V4.into(), OUTSIDE_V6.into()]);
        let pings: String = targets.map(|target| format!("ping -q -i {} {target} & ", PERIOD.as_secs_f64())).collect();
        let container = json!({"name": "sender", "image": BUSYBOX, "command": ["sh", "-c", format!("{pings} wait")]});
        pod(name, node, &json!({"kind": kind}), container)
    }
}

impl Outcome {
    fn add(&mut self, nursery: &Nursery<'_>, (address, addresses): &(Moment, Vec<IpAddr>), host: usize) -> Result<()> {
        let from = v4(addresses)?;
        let heard = nursery.ears.servers().iter().map(|ear| ear.of(from).context("it was heard"));
        let heard = heard.collect::<Result<Vec<_>>>()?;
        // A pod sends to all from its beginning: who hears it first tells when that was.
        let sent = heard.iter().map(|heard| heard.first.before(PERIOD * u32::from(heard.number))).min();
        let sent = sent.context("there is a server on each node")?;
        for (index, heard) in heard.iter().enumerate() {
            // Other nodes can't know a pod before the API server does; its own can.
            let (times, begin) =
                if index == host { (&mut self.same, sent) } else { (&mut self.other, sent.max(*address)) };
            times.since_address.push(heard.first.since(*address));
            times.waited.push(heard.first.since(begin));
        }
        Ok(())
    }

    fn report(&self) -> Result<Vec<Row>> {
        const NONE: [Option<f64>; 3] = [None; 3];
        let mut rows = Vec::new();
        for (name, times, goals) in [
            ("same node, waited since its first packet", &self.same.waited, [None, None, Some(1000.0)]),
            (
                "other node, waited since both its address and its first packet",
                &self.other.waited,
                [None, Some(100.0), None],
            ),
            ("same node, since its address", &self.same.since_address, NONE),
            ("other node, since its address", &self.other.since_address, NONE),
        ] {
            for (rank, goal) in [50, 99, 100].into_iter().zip(goals) {
                let shown = if rank == 100 { "longest".to_owned() } else { format!("p{rank}") };
                let (name, value) = (format!("pod's start/{name}/{shown}"), milliseconds(times, rank)?);
                rows.push(match goal {
                    Some(limit) => Row::at_most(name, value, "ms", limit),
                    None => Row::plain(name, value, "ms"),
                });
            }
        }
        let name = format!("pod's start/leaked packets of {} pods", self.pods);
        rows.push(Row::count(name, self.leaked, "packets", 0)?);
        Ok(rows)
    }
}

/// One at each server, then two outside.
struct Ears {
    all: Vec<Listener>,
    done: AtomicBool,
}

impl Ears {
    fn open(lab: &Lab, hosts: &[Pod]) -> Result<Self> {
        let mut all = Vec::new();
        for host in hosts {
            all.push(Listener::new(host.network().run(|| Ear::open(AddressFamily::Inet, SockProtocol::Icmp))?));
        }
        for (family, protocol) in
            [(AddressFamily::Inet, SockProtocol::Icmp), (AddressFamily::Inet6, SockProtocol::IcmpV6)]
        {
            all.push(Listener::new(lab.control().run(|| Ear::open(family, protocol))?));
        }
        Ok(Self { all, done: AtomicBool::new(false) })
    }

    fn servers(&self) -> &[Listener] {
        &self.all[..self.all.len() - 2]
    }

    fn outside(&self) -> &[Listener] {
        &self.all[self.all.len() - 2..]
    }

    fn forget(&self) {
        self.all.iter().for_each(|ear| lock(&ear.senders).clear());
    }
}

/// What was heard at one place, by sender.
struct Listener {
    ear: Ear,
    senders: Mutex<BTreeMap<IpAddr, Sender>>,
}

#[derive(Clone, Copy)]
struct Sender {
    first: Moment,
    /// Of the first that was heard, from 0.
    number: u16,
    count: u64,
}

impl Listener {
    fn new(ear: Ear) -> Self {
        Self { ear, senders: Mutex::default() }
    }

    fn listen(&self, done: &AtomicBool) -> Result<()> {
        let mut buffer = [0; 256];
        while !done.load(Ordering::Relaxed) {
            let Some(heard) = self.ear.hear(&mut buffer)? else { continue };
            let Some(number) = echo_request(heard.packet) else { continue };
            let mut senders = lock(&self.senders);
            let from = heard.from.to_canonical();
            senders.entry(from).or_insert(Sender { first: heard.at, number, count: 0 }).count += 1;
        }
        Ok(())
    }

    fn of(&self, from: IpAddr) -> Option<Sender> {
        lock(&self.senders).get(&from).copied()
    }

    /// How many came from anybody else, whoever that is.
    fn packets_of_others(&self, from: &[IpAddr]) -> u64 {
        lock(&self.senders).iter().filter(|(other, _)| !from.contains(other)).map(|(_, sender)| sender.count).sum()
    }
}

/// The number of an echo request of either family (RFC 792, RFC 4443 4.1).
fn echo_request(packet: &[u8]) -> Option<u16> {
    match packet {
        [8 | 128, 0, _, _, _, _, high, low, ..] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

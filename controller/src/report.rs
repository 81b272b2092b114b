//! What the packet program tells, made readable: names for addresses, lines for the log, counts of what was left out,
//! and the last records for whoever asks on the socket. Entry point: [`Journal::record`].

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use enforcer_abi::{Direction, Event, EventKind, Reason, protocol};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::broadcast;

/// How many records are kept for whoever asks later.
const KEPT: usize = 4096;
/// How many records a slow reader of the stream may lag behind before it misses some.
const BACKLOG: usize = 4096;
/// How many lines the log takes at once, and how many a second after that.
const LOG_BURST: f64 = 20.0;
const LOG_RATE: f64 = 10.0;

/// One thing that happened at a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Counts up from 1 while the agent runs.
    pub sequence: u64,
    /// When the packet was judged.
    pub time: Timestamp,
    /// `drop`, `flow`, `audit` or `cut`.
    pub kind: &'static str,
    /// `ingress` or `egress`, seen from the pod.
    pub direction: &'static str,
    /// See [`reason_name`].
    pub reason: &'static str,
    /// The same in words.
    pub message: &'static str,
    /// The interface on the node's side.
    pub interface: String,
    /// The pod's end.
    pub pod: End,
    /// The other end.
    pub remote: End,
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6` or a number.
    pub protocol: String,
    /// Bytes, the Ethernet header included.
    pub length: u32,
    /// The policies that isolate the pod in this direction, as `namespace/name`.
    pub policies: Vec<String>,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// As in the packet.
    pub address: IpAddr,
    /// 0 where the protocol has none.
    pub port: u16,
    /// Whose address it is, as `namespace/name`, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// Something for whoever follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Item {
    /// What happened.
    Seen(Box<Record>),
    /// That not all of what happened is known.
    Lost(Lost),
}

/// Events that the packet program did not send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// Counted with the records.
    pub sequence: u64,
    /// When it was found.
    pub time: Timestamp,
    /// `lost`
    pub kind: &'static str,
    /// How many, because there were more than the rate limit allows.
    pub rate_limit: u64,
    /// How many, because the ring buffer was full.
    pub ring_full: u64,
}

impl Item {
    /// Counts up from 1 while the agent runs.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        match self {
            Self::Seen(record) => record.sequence,
            Self::Lost(lost) => lost.sequence,
        }
    }
}

/// What the journal has to be told of an event besides the event.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The interface.
    pub interface: String,
    /// The pod behind the interface, as `namespace/name`.
    pub pod: Option<String>,
    /// The pod with the remote address.
    pub remote: Option<String>,
    /// The policies that isolate the pod in the event's direction.
    pub policies: Vec<String>,
}

/// The last records, and a stream of those to come.
#[derive(Debug)]
pub struct Journal {
    inner: Mutex<Inner>,
    stream: broadcast::Sender<Arc<Item>>,
}

#[derive(Debug)]
struct Inner {
    last: VecDeque<Arc<Item>>,
    sequence: u64,
    budget: Budget,
}

impl Default for Journal {
    fn default() -> Self {
        let inner = Inner { last: VecDeque::new(), sequence: 0, budget: Budget::new(Instant::now()) };
        Self { inner: Mutex::new(inner), stream: broadcast::Sender::new(BACKLOG) }
    }
}

impl Journal {
    /// Takes note of an event, and logs it if it is a denial and the log has room. `time` is when it happened.
    pub fn record(&self, event: &Event, names: Names, time: Timestamp) {
        let mut inner = self.lock();
        inner.sequence += 1;
        let record = Record::new(inner.sequence, event, names, time);
        if event.kind != EventKind::NewFlow as u8 {
            match inner.budget.take(Instant::now()) {
                Take::Line { left_out: 0 } => log(&record),
                Take::Line { left_out } => {
                    tracing::warn!(left_out, "more denials than the log takes; the socket's /events has them");
                    log(&record);
                }
                Take::Nothing => {}
            }
        }
        self.keep(&mut inner, Item::Seen(Box::new(record)));
    }

    /// Takes note of events that the packet program has not sent: how many for the rate limit, and for the full buffer.
    pub fn lost(&self, rate_limit: u64, ring_full: u64) {
        let mut inner = self.lock();
        inner.sequence += 1;
        let (sequence, time, kind) = (inner.sequence, Timestamp::now(), "lost");
        self.keep(&mut inner, Item::Lost(Lost { sequence, time, kind, rate_limit, ring_full }));
    }

    fn keep(&self, inner: &mut Inner, item: Item) {
        let item = Arc::new(item);
        if inner.last.len() == KEPT {
            inner.last.pop_front();
        }
        inner.last.push_back(Arc::clone(&item));
        // nobody listening is no error
        let _ = self.stream.send(item);
    }

    /// The records that are kept, and those to come, without a gap between them.
    pub fn subscribe(&self) -> (Vec<Arc<Item>>, broadcast::Receiver<Arc<Item>>) {
        let inner = self.lock();
        (inner.last.iter().cloned().collect(), self.stream.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // a record is pushed whole or not at all
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn new(sequence: u64, event: &Event, names: Names, time: Timestamp) -> Self {
        let reason = Reason::from_u8(event.reason);
        let direction = if event.direction == Direction::Egress as u8 { Direction::Egress } else { Direction::Ingress };
        Self {
            sequence,
            time,
            kind: kind_name(event.kind),
            direction: direction_name(direction),
            reason: reason.map_or("unknown", reason_name),
            message: reason.map_or("for a reason that this agent doesn't know", reason_text),
            interface: names.interface,
            pod: End { address: event.pod.into(), port: event.pod_port, pod: names.pod },
            remote: End { address: event.remote.into(), port: event.remote_port, pod: names.remote },
            protocol: protocol_name(event.protocol),
            length: event.length,
            policies: names.policies,
        }
    }

    /// Who opened the connection, and where to.
    #[must_use]
    pub fn ends(&self) -> (&End, &End) {
        match self.direction {
            "ingress" => (&self.remote, &self.pod),
            _ => (&self.pod, &self.remote),
        }
    }
}

fn log(record: &Record) {
    let (source, destination) = record.ends();
    let what = match record.kind {
        "drop" => "dropped",
        "cut" => "cut an established connection",
        "audit" => "would drop, but audit mode is on",
        other => other,
    };
    let (source, destination) = (source.to_text(), destination.to_text());
    let policies = record.policies.join(", ");
    tracing::warn!(
        target: "sluice::verdict",
        direction = record.direction,
        reason = record.reason,
        interface = record.interface,
        policies,
        "{what}: {source} -> {destination} {}: {}",
        record.protocol,
        record.message
    );
}

impl End {
    fn to_text(&self) -> String {
        let address = match (self.port, self.address) {
            (0, address) => address.to_string(),
            (port, address) => std::net::SocketAddr::new(address, port).to_string(),
        };
        match &self.pod {
            Some(pod) => format!("{pod} ({address})"),
            None => address,
        }
    }
}

fn kind_name(kind: u8) -> &'static str {
    const DROP: u8 = EventKind::Drop as u8;
    const NEW_FLOW: u8 = EventKind::NewFlow as u8;
    const AUDIT: u8 = EventKind::Audit as u8;
    const CUT: u8 = EventKind::Cut as u8;
    match kind {
        DROP => "drop",
        NEW_FLOW => "flow",
        AUDIT => "audit",
        CUT => "cut",
        _ => "unknown",
    }
}

/// The label of a direction.
#[must_use]
pub const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "TCP".into(),
        protocol::UDP => "UDP".into(),
        protocol::SCTP => "SCTP".into(),
        protocol::ICMP => "ICMP".into(),
        protocol::ICMPV6 => "ICMPv6".into(),
        other => format!("protocol {other}"),
    }
}

/// The label of a reason.
#[must_use]
pub const fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Rule => "rule",
        Reason::NotIsolated => "not_isolated",
        Reason::NodeOwn => "node_own",
        Reason::Audit => "audit",
        Reason::MidStream => "mid_stream",
        Reason::Infrastructure => "infrastructure",
        Reason::Related => "related",
        Reason::Established => "established",
        Reason::NoRule => "no_rule",
        Reason::FrontEndMixed => "front_end_mixed",
        Reason::FrontEndClosed => "front_end_closed",
        Reason::FlowRefused => "flow_refused",
        Reason::Impersonation => "impersonation",
        Reason::RouterImpersonation => "router_impersonation",
        Reason::Held => "held",
        Reason::Unparsable => "unparsable",
        Reason::Fragment => "fragment",
        Reason::Closed => "closed",
    }
}

/// A reason in words.
const fn reason_text(reason: Reason) -> &'static str {
    match reason {
        Reason::Rule => "a rule allows it",
        Reason::NotIsolated => "no policy isolates the pod in this direction",
        Reason::NodeOwn => "the node's own traffic",
        Reason::Audit => "no rule allows it",
        Reason::MidStream => "a connection older than its flow entry",
        Reason::Infrastructure => "ARP, neighbour discovery or MLD",
        Reason::Related => "an ICMP error of a connection that passes",
        Reason::Established => "an established connection",
        Reason::NoRule => "the pod is isolated and no rule allows it",
        Reason::FrontEndMixed => "policies refuse some of the Service's back ends",
        Reason::FrontEndClosed => "the Service has no back end that the policies allow",
        Reason::FlowRefused => "a change of policy no longer allows the connection",
        Reason::Impersonation => "the source address is not the pod's",
        Reason::RouterImpersonation => "a pod may not act as a router",
        Reason::Held => "it isn't known yet which pod the interface is",
        Reason::Unparsable => "the packet can't be parsed",
        Reason::Fragment => "the first fragment was refused or not seen",
        Reason::Closed => "the pod's policies could not be programmed",
    }
}

/// A token bucket for lines.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    refilled: Instant,
    left_out: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Take {
    Line { left_out: u64 },
    Nothing,
}

impl Budget {
    const fn new(now: Instant) -> Self {
        Self { tokens: LOG_BURST, refilled: now, left_out: 0 }
    }

    fn take(&mut self, now: Instant) -> Take {
        let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + passed * LOG_RATE).min(LOG_BURST);
        self.refilled = now;
        if self.tokens < 1.0 {
            self.left_out += 1;
            return Take::Nothing;
        }
        self.tokens -= 1.0;
        Take::Line { left_out: std::mem::take(&mut self.left_out) }
    }
}

/// Turns `bpf_ktime_get_ns` (CLOCK_MONOTONIC) into the time of day.
#[must_use]
pub fn time_of_day(monotonic: u64) -> Timestamp {
    let now = Timestamp::now();
    let Ok(clock) = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) else { return now };
    let age = Duration::from(clock).saturating_sub(Duration::from_nanos(monotonic));
    now.checked_sub(age).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_abi::Address;

    fn event(reason: Reason, kind: EventKind) -> Event {
        Event {
            time: 0,
            table: 1,
            class: 2,
            pod: Address::from_v4([10, 0, 0, 2]),
            remote: Address::from_v4([10, 0, 0, 3]),
            ifindex: 7,
            length: 74,
            port_class: 0,
            remote_port: 40_000,
            pod_port: 5432,
            protocol: protocol::TCP,
            direction: Direction::Ingress as u8,
            reason: reason as u8,
            kind: kind as u8,
            tcp_flags: 2,
            reserved: [0; 3],
        }
    }

    #[test]
    fn a_record_as_json() {
        let names = Names {
            interface: "veth7".into(),
            pod: Some("shop/db".into()),
            remote: Some("shop/web".into()),
            policies: vec!["shop/deny".into()],
        };
        let record = Record::new(9, &event(Reason::NoRule, EventKind::Drop), names, Timestamp::UNIX_EPOCH);
        let json = serde_json::to_value(&record).unwrap();
        let expected = serde_json::json!({
            "sequence": 9, "time": "1970-01-01T00:00:00Z", "kind": "drop", "direction": "ingress", "reason": "no_rule",
            "message": "the pod is isolated and no rule allows it", "interface": "veth7",
            "pod": {"address": "10.0.0.2", "port": 5432, "pod": "shop/db"},
            "remote": {"address": "10.0.0.3", "port": 40000, "pod": "shop/web"},
            "protocol": "TCP", "length": 74, "policies": ["shop/deny"],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_log_has_a_limit_and_says_what_it_left_out() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let lines = (0..100).filter(|_| budget.take(start) != Take::Nothing).count();
        assert_eq!(lines, 20);
        assert_eq!(budget.take(start + Duration::from_millis(50)), Take::Nothing);
        assert_eq!(budget.take(start + Duration::from_millis(101)), Take::Line { left_out: 81 });
        assert_eq!(budget.take(start + Duration::from_millis(210)), Take::Line { left_out: 0 });
    }

    #[test]
    fn who_subscribes_late_gets_the_last_ones() {
        let journal = Journal::default();
        for _ in 0..KEPT + 10 {
            journal.record(&event(Reason::Rule, EventKind::NewFlow), Names::default(), Timestamp::UNIX_EPOCH);
        }
        let (kept, mut stream) = journal.subscribe();
        assert_eq!((kept.len(), kept[0].sequence()), (KEPT, 11));
        journal.record(&event(Reason::Rule, EventKind::NewFlow), Names::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(stream.try_recv().unwrap().sequence(), kept.last().unwrap().sequence() + 1);
    }

    #[test]
    fn what_was_lost_is_counted_among_the_records() {
        let journal = Journal::default();
        journal.record(&event(Reason::Rule, EventKind::NewFlow), Names::default(), Timestamp::UNIX_EPOCH);
        journal.lost(5, 0);
        let (kept, _) = journal.subscribe();
        let json = serde_json::to_value(&kept[1]).unwrap();
        assert_eq!((&json["kind"], &json["rateLimit"], &json["sequence"]), (&"lost".into(), &5.into(), &2.into()));
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = Reason::ALL.into_iter().map(reason_name).collect();
        assert_eq!(names.len(), Reason::COUNT);
    }
}

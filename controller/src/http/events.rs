//! What happens at the pods, in lines of JSON: `GET /events`, what is remembered and what is to come, filtered here, so
//! that what nobody wants goes nowhere.

use std::{convert::Infallible, net::IpAddr, str::FromStr, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use ipnet::IpNet;
use serde::Deserialize;
use tokio::sync::{broadcast, watch};

use super::{Shared, line, lines};
use crate::report::{End, Item, Record};

/// What `/events` may be asked. Without anything, everything.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EventsQuery {
    /// Go on with those to come.
    follow: bool,
    /// Only those after this sequence number.
    since: u64,
    /// Only what is remembered, from the end; 0 for nothing.
    last: usize,
    /// Who opened the connection: see [`EndMatch`].
    from: Option<String>,
    /// Where to.
    to: Option<String>,
    /// Either end.
    pod: Option<String>,
    /// The namespace of either end.
    namespace: Option<String>,
    /// `allowed`, `denied` or `audit`
    verdict: Option<Verdict>,
    /// The destination port.
    port: Option<u16>,
    /// `TCP`, in any case.
    protocol: Option<String>,
}

impl Default for EventsQuery {
    fn default() -> Self {
        Self {
            follow: true,
            since: 0,
            last: usize::MAX,
            from: None,
            to: None,
            pod: None,
            namespace: None,
            verdict: None,
            port: None,
            protocol: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// It passed, and the tables allow it.
    Allowed,
    /// It was dropped, or an established connection was cut.
    Denied,
    /// It passed, because audit mode is on.
    Audit,
}

/// An end of a connection.
#[derive(Debug, PartialEq, Eq)]
enum EndMatch {
    /// `namespace/name`
    Pod(String),
    /// `namespace/start*`
    Pods(String),
    Network(IpNet),
}

impl FromStr for EndMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(network) = text.parse() {
            return Ok(Self::Network(network));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        match (text.matches('/').count(), text.strip_suffix('*')) {
            (1, Some(start)) => Ok(Self::Pods(start.to_owned())),
            (1, None) => Ok(Self::Pod(text.to_owned())),
            _ => Err(format!("{text:?} is no end; write NAMESPACE/POD, NAMESPACE/START*, an address or a network")),
        }
    }
}

impl EndMatch {
    fn matches(&self, end: &End) -> bool {
        let pod = end.pod.as_deref();
        match self {
            Self::Pod(name) => pod == Some(name),
            Self::Pods(start) => pod.is_some_and(|pod| pod.starts_with(start.as_str())),
            Self::Network(network) => network.contains(&end.address),
        }
    }
}

/// Which records are wanted.
#[derive(Debug, Default)]
struct Filter {
    from: Option<EndMatch>,
    to: Option<EndMatch>,
    pod: Option<EndMatch>,
    namespace: Option<String>,
    verdict: Option<Verdict>,
    port: Option<u16>,
    protocol: Option<String>,
}

impl Filter {
    fn of(query: &EventsQuery) -> Result<Self, String> {
        let end = |text: &Option<String>| text.as_deref().map(str::parse).transpose();
        Ok(Self {
            from: end(&query.from)?,
            to: end(&query.to)?,
            pod: end(&query.pod)?,
            namespace: query.namespace.as_ref().map(|namespace| format!("{namespace}/")),
            verdict: query.verdict,
            port: query.port,
            protocol: query.protocol.clone(),
        })
    }

    /// That something was lost concerns everybody: it may have been what was wanted.
    fn wants(&self, item: &Item) -> bool {
        match item {
            Item::Seen(record) => self.wants_record(record),
            Item::Lost(_) => true,
        }
    }

    fn wants_record(&self, record: &Record) -> bool {
        let (from, to) = record.ends();
        let verdict = match record.kind {
            "drop" | "cut" => Verdict::Denied,
            "audit" => Verdict::Audit,
            _ => Verdict::Allowed,
        };
        let is_in = |end: &End, namespace: &str| end.pod.as_ref().is_some_and(|pod| pod.starts_with(namespace));
        let fits = |wanted: &Option<EndMatch>, end: &End| wanted.as_ref().is_none_or(|wanted| wanted.matches(end));
        fits(&self.from, from)
            && fits(&self.to, to)
            && (fits(&self.pod, from) || fits(&self.pod, to))
            && self.namespace.as_ref().is_none_or(|namespace| is_in(from, namespace) || is_in(to, namespace))
            && self.verdict.is_none_or(|wanted| wanted == verdict)
            && self.port.is_none_or(|port| to.port == port)
            && self.protocol.as_ref().is_none_or(|protocol| protocol.eq_ignore_ascii_case(&record.protocol))
    }
}

pub(super) async fn events(State(shared): State<Shared>, Query(query): Query<EventsQuery>) -> Response {
    let filter = match Filter::of(&query) {
        Ok(filter) => filter,
        Err(sentence) => return (StatusCode::BAD_REQUEST, format!("{sentence}\n")).into_response(),
    };
    let (kept, coming) = shared.journal.subscribe();
    let kept: Vec<_> = kept.iter().filter(|item| item.sequence() > query.since && filter.wants(item)).collect();
    let first = kept.len().saturating_sub(query.last);
    let mut text = Vec::new();
    kept[first..].iter().for_each(|item| line(&mut text, item));
    let body = if query.follow {
        let following = Following { first: Some(Bytes::from(text)), coming, stopping: shared.stopping, filter };
        Body::from_stream(stream::unfold(following, next))
    } else {
        Body::from(text)
    };
    lines(body)
}

/// A stream that is followed.
struct Following {
    first: Option<Bytes>,
    coming: broadcast::Receiver<Arc<Item>>,
    stopping: watch::Receiver<bool>,
    filter: Filter,
}

/// The next piece, until the agent drains.
async fn next(mut following: Following) -> Option<(Result<Bytes, Infallible>, Following)> {
    if let Some(kept) = following.first.take() {
        return Some((Ok(kept), following));
    }
    loop {
        let item = tokio::select! {
            item = following.coming.recv() => item,
            _ = following.stopping.wait_for(|stopping| *stopping) => return None,
        };
        let bytes = match item {
            Ok(item) if following.filter.wants(&item) => {
                let mut text = Vec::new();
                line(&mut text, &item);
                text.into()
            }
            Ok(_) => continue,
            Err(broadcast::error::RecvError::Lagged(missed)) => format!("{{\"missed\":{missed}}}\n").into(),
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        return Some((Ok(bytes), following));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn record() -> Record {
        let end =
            |address: &str, port, pod: &str| End { address: address.parse().unwrap(), port, pod: Some(pod.into()) };
        Record {
            sequence: 1,
            time: Timestamp::UNIX_EPOCH,
            kind: "drop",
            direction: "ingress",
            reason: "no_rule",
            message: "",
            interface: "veth0".into(),
            pod: end("10.0.0.2", 5432, "shop/db-0"),
            remote: end("fd00::3", 40_000, "web/front"),
            protocol: "TCP".into(),
            length: 60,
            policies: Vec::new(),
        }
    }

    #[test]
    fn what_is_wanted() {
        #[track_caller]
        fn check(change: fn(&mut EventsQuery), expected: bool) {
            let mut query = EventsQuery::default();
            change(&mut query);
            assert_eq!(Filter::of(&query).unwrap().wants_record(&record()), expected, "{query:?}");
        }
        let text = |text: &str| Some(text.to_owned());
        check(|_| {}, true);
        check(|query| query.from = Some("web/front".into()), true);
        check(|query| query.from = Some("shop/db-0".into()), false);
        check(|query| query.from = Some("fd00::/64".into()), true);
        check(|query| query.from = Some("10.0.0.0/8".into()), false);
        check(|query| query.to = Some("shop/db*".into()), true);
        check(|query| query.to = Some("10.0.0.2".into()), true);
        check(|query| query.to = Some("10.0.0.3".into()), false);
        check(|query| query.pod = Some("web/*".into()), true);
        check(|query| query.pod = Some("we/*".into()), false);
        check(|query| query.namespace = Some("shop".into()), true);
        check(|query| query.namespace = Some("sho".into()), false);
        check(|query| query.verdict = Some(Verdict::Denied), true);
        check(|query| query.verdict = Some(Verdict::Allowed), false);
        check(|query| query.port = Some(5432), true);
        check(|query| query.port = Some(40_000), false);
        check(|query| query.protocol = Some("tcp".into()), true);
        check(|query| query.protocol = Some("udp".into()), false);
        let bad = EventsQuery { from: text("db"), ..EventsQuery::default() };
        assert_eq!(
            Filter::of(&bad).unwrap_err(),
            "\"db\" is no end; write NAMESPACE/POD, NAMESPACE/START*, an address or a network"
        );
    }
}

//! Class `veth`: what must not be interrupted. The node's own connections to its pods live through every change of policy.
#![forbid(unsafe_code)]

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{
    Outcome, Pod, Server, Site, Stream, Transport, Wiring, is_root, probe,
    site::{Policy, peer},
};
use serde_json::json;

const PORT: u16 = 8080;
const EPOCHS: u64 = 1000;

#[test]
fn the_nodes_own_connections_live_through_a_thousand_epochs() -> Result<()> {
    if !is_root() {
        eprintln!("skipped: needs root");
        return Ok(());
    }
    let mut site = Site::start(Wiring::PointToPoint, &[])?;
    let (isolated, a, b) = (site.pod("isolated")?, site.pod("a")?, site.pod("b")?);
    let _server = Server::start(isolated.namespace(), "isolated", &[(Transport::Tcp, PORT)])?;
    // Each number allows what the one before refused, and the other way round: at this pod, whose epoch it is that the
    // connections must outlive, and on a port that nobody uses.
    let policies = |number: u64| {
        let source: &Pod = if number.is_multiple_of(2) { &a } else { &b };
        let rule = json!([{"from": [peer(source)], "ports": [{"port": PORT + 1}]}]);
        let changing = Policy::ingress(&format!("p{number}"), &isolated, rule);
        [Policy::deny("nothing", &isolated), changing]
    };
    site.enforce(&policies(0))?;
    let streams: Vec<(SocketAddr, Stream)> = isolated
        .addresses()
        .iter()
        .map(|address| {
            let to = SocketAddr::new(*address, PORT);
            let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(2)).context("the node can't connect");
            Ok((to, Stream::over(site.node.namespace().run(connect)?)?))
        })
        .collect::<Result<_>>()?;
    for (to, stream) in &streams {
        ensure!(stream.flows(Duration::from_secs(5)), "the node's connection to {to} doesn't flow at all");
    }
    // What was dropped while the interface was held, and whose it is wasn't known, doesn't count.
    let dropped =
        |site: &Site| Ok::<_, anyhow::Error>([site.dropped(&isolated, "ingress")?, site.dropped(&isolated, "egress")?]);
    let before = dropped(&site)?;
    let first = site.epoch()?;
    let mut number = 0;
    while site.epoch()? < first + EPOCHS {
        number += 1;
        site.enforce(&policies(number))?;
        if number.is_multiple_of(100) {
            for (to, stream) in &streams {
                ensure!(
                    stream.flows(Duration::from_secs(5)),
                    "the node's connection to {to} stands after {number} changes"
                );
            }
        }
        ensure!(number <= 2 * EPOCHS, "{number} changes have raised the epoch by {}", site.epoch()? - first);
    }
    for (to, stream) in &streams {
        assert!(stream.flows(Duration::from_secs(5)), "the node's connection to {to} stands");
    }
    assert_eq!(dropped(&site)?, before, "not one packet of the node's, or to it, was dropped");

    for (address, source) in isolated.addresses().iter().zip(a.addresses()) {
        let to = SocketAddr::new(*address, PORT);
        for transport in [Transport::Icmp, Transport::Tcp] {
            let answer = probe(site.node.namespace(), transport, to, Outcome::Open)?;
            assert_eq!(answer.outcome, Outcome::Open, "the node asks {address} over {transport}");
            let answer = probe(a.namespace(), transport, to, Outcome::Dropped)?;
            assert_eq!(answer.outcome, Outcome::Dropped, "{source} asks {address} over {transport}");
        }
        assert_eq!(
            probe(isolated.namespace(), Transport::Icmp, SocketAddr::new(*source, 0), Outcome::Dropped)?.outcome,
            Outcome::Dropped,
            "the pod itself asks {source}"
        );
    }
    assert_ne!(dropped(&site)?, before, "so drops do count");
    Ok(())
}

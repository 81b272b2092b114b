//! The veths of this node as the kernel shows them now. Entry points: [`Lister::list`] to look, [`hints`] to be told when
//! to look again.

use std::{collections::BTreeSet, net::IpAddr, ops::ControlFlow, time::Instant};

use enforcer::{
    NetlinkError,
    veth::{Change, Interfaces, Watcher},
};
use tokio::sync::mpsc;

use crate::{bind::Link, inhabited, readable};

/// Something about interfaces or addresses has changed.
#[derive(Clone, Debug)]
pub struct Hint {
    /// Interfaces that are new or have changed.
    pub links: BTreeSet<u32>,
    /// The veths among them whose other end is elsewhere, without anything that is behind them.
    pub veths: Vec<Link>,
    /// When it was noticed.
    pub seen: Instant,
}

/// All that [`Lister::list`] finds.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// The veths.
    pub veths: Vec<Link>,
    /// All interfaces by name.
    pub names: Vec<(u32, String)>,
    /// The node's addresses of global scope.
    pub own: Vec<IpAddr>,
}

/// Looks at the network namespace in which it was opened.
#[derive(Debug)]
pub struct Lister {
    interfaces: Interfaces,
}

impl Lister {
    /// For the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { interfaces: Interfaces::open()? })
    }

    /// All veths. What is behind one is only asked where `wanted` says so: of an interface that is bound, nobody wants
    /// to know.
    pub fn list(&mut self, wanted: impl Fn(u32) -> bool) -> Result<Links, NetlinkError> {
        // addresses last: a veth that is listed with no address will be announced when it gets one
        let links = self.interfaces.links()?;
        let uplinks = self.interfaces.default_route_links()?;
        let own = self.interfaces.own_addresses()?;
        let is_wanted = |link: &&enforcer::Link| link.kind == "veth" && wanted(link.ifindex);
        let namespaces: BTreeSet<i32> = links.iter().filter(is_wanted).filter_map(|link| link.netns).collect();
        let mut found = Links { own: own.iter().map(|(_, address)| *address).collect(), ..Links::default() };
        for link in links {
            found.names.push((link.ifindex, link.name.clone()));
            if link.kind != "veth" {
                continue;
            }
            let addresses = if wanted(link.ifindex) { self.interfaces.addresses_behind(&link)? } else { Vec::new() };
            found.veths.push(Link {
                index: link.ifindex,
                namespace: link.netns,
                addresses,
                own: own.iter().filter(|(index, _)| *index == link.ifindex).map(|(_, address)| *address).collect(),
                uplink: uplinks.contains(&link.ifindex),
                name: link.name,
                inhabitants: None,
            });
        }
        if !namespaces.is_empty() {
            // after the addresses: where no process is found now, none has changed what was shown
            let inhabited = inhabited::namespaces(&mut self.interfaces, &namespaces)?;
            for veth in &mut found.veths {
                veth.inhabitants = veth.namespace.and_then(|netns| inhabited.get(&netns).cloned());
            }
        }
        Ok(found)
    }
}

/// Tells of changes until nobody receives them, or netlink fails. The watcher has to be opened before the first listing.
pub async fn hints(watcher: Watcher, told: mpsc::Sender<Hint>) -> anyhow::Result<()> {
    readable::follow("links", watcher, move |watcher| {
        let changes = watcher.read()?;
        if changes.is_empty() {
            return Ok(ControlFlow::Continue(()));
        }
        let mut hint = Hint { links: BTreeSet::new(), veths: Vec::new(), seen: Instant::now() };
        for change in changes {
            let Change::Link(link) = change else { continue };
            hint.links.insert(link.ifindex);
            if link.kind == "veth" && link.netns.is_some() {
                let veth = Link { index: link.ifindex, name: link.name, namespace: link.netns, ..Link::default() };
                hint.veths.push(veth);
            }
        }
        // the agent drains if nobody listens
        Ok(if told.blocking_send(hint).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })
    .await
}

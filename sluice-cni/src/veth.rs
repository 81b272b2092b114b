//! The host's end of a pod's veth, found without entering the pod's namespace. Entry point: [`find`].

use std::{fs::File, net::IpAddr, os::fd::AsFd as _, path::Path};

use enforcer::{Link, veth::Interfaces};

use crate::{
    failure::{Failure, IO, UNENFORCEABLE},
    previous::Previous,
};

/// The one veth that leads to the namespace at `netns`. Of several, the one that the plugins before name, else the one
/// that shows an address which they gave the pod.
pub(crate) fn find(netns: &Path, previous: &Previous) -> Result<Link, Failure> {
    let failed = |error| Failure::caused(IO, "the node's interfaces can't be listed", &error);
    let mut interfaces = Interfaces::open().map_err(failed)?;
    // the kernel gives the other namespaces their ids as it lists what leads there
    let mut veths = interfaces.veths().map_err(failed)?;
    let namespace = File::open(netns).map_err(|error| {
        Failure::new(IO, "the pod's network namespace can't be opened", format!("{}: {error}", netns.display()))
    })?;
    let id = interfaces.namespace_at(namespace.as_fd()).map_err(failed)?;
    veths.retain(|veth| id.is_some() && veth.netns == id);
    let names: Vec<&str> = previous.on_host().collect();
    let wanted = previous.addresses()?;
    let is_named = |veth: &Link| names.contains(&veth.name.as_str());
    let mut shows = |veth: &Link| {
        let addresses: Vec<IpAddr> = interfaces.addresses_behind(veth).map_err(failed)?;
        Ok(addresses.iter().any(|address| wanted.contains(address)))
    };
    narrow(&mut veths, |veth| Ok(is_named(veth)))?;
    narrow(&mut veths, &mut shows)?;
    match veths.as_slice() {
        [veth] => Ok(veth.clone()),
        [] => Err(Failure::new(
            UNENFORCEABLE,
            "no veth leads to the pod",
            format!(
                "nothing on this node shows the packets of {}: network policies can't be enforced with the plugins of \
                 this network",
                netns.display()
            ),
        )),
        several => {
            let names: Vec<&str> = several.iter().map(|veth| veth.name.as_str()).collect();
            let details =
                format!("{} all lead to {}, and prevResult names none of them", names.join(", "), netns.display());
            Err(Failure::new(UNENFORCEABLE, "several veths lead to the pod", details))
        }
    }
}

/// Of several, keeps those that are `chosen`, if there are any.
fn narrow(veths: &mut Vec<Link>, mut chosen: impl FnMut(&Link) -> Result<bool, Failure>) -> Result<(), Failure> {
    if veths.len() < 2 {
        return Ok(());
    }
    let mut kept = Vec::new();
    for veth in veths.iter() {
        if chosen(veth)? {
            kept.push(veth.clone());
        }
    }
    if !kept.is_empty() {
        *veths = kept;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_the_chosen_ones_stay() {
        let link = |ifindex| Link {
            ifindex,
            name: format!("veth{ifindex}"),
            kind: "veth".into(),
            peer: Some(2),
            netns: Some(0),
            controller: None,
            up: true,
        };
        let left = |chosen: fn(&Link) -> bool, count: u32| {
            let mut veths: Vec<Link> = (1..=count).map(link).collect();
            narrow(&mut veths, |veth| Ok(chosen(veth))).unwrap();
            veths.iter().map(|veth| veth.ifindex).collect::<Vec<_>>()
        };
        assert_eq!(left(|veth| veth.ifindex == 2, 3), [2]);
        assert_eq!(left(|_| false, 3), [1, 2, 3]);
        assert_eq!(left(|_| false, 1), [1]);
    }
}

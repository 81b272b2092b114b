//! A pod's first packets: under a policy that denies them, none leaves it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bed::Outcome,
    lab::{Lab, OUTSIDE_V4, OUTSIDE_V6, Pod},
    wait::until,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, socket};
use serde_json::{Value, json};

use crate::scene::{BUSYBOX, Scene, eventually, pod, policy, with_container};

/// Pods that send from their first instant, most of them under a policy that denies it. A receiver outside counts whose
/// packets it gets.
pub(crate) fn no_early_packet(lab: &Lab) -> Result<()> {
    births(lab, "birth", 4, 12)
}

/// As [`no_early_packet`], of so many pods that may send and that may not.
pub(crate) fn births(lab: &Lab, name: &str, free: usize, shut: usize) -> Result<()> {
    let mut scene = Scene::open(lab, name)?;
    let deny = policy("deny", json!({"podSelector": {"matchLabels": {"may": "not"}}, "policyTypes": ["Egress"]}));
    scene.apply(&[deny])?;
    let receivers = [receiver(lab, OUTSIDE_V4.into())?, receiver(lab, OUTSIDE_V6.into())?];
    let shut = (0..shut).map(|n| (format!("shut-{n}"), false));
    let names: Vec<(String, bool)> = (0..free).map(|n| (format!("free-{n}"), true)).chain(shut).collect();
    let pods: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(n, (name, may))| sender(name, &format!("n{}", n % lab.nodes().len() + 1), *may))
        .collect();
    let heard = Heard::default();
    thread::scope(|scope| {
        let listening = receivers.each_ref().map(|receiver| scope.spawn(|| heard.listen(receiver)));
        // Everybody who may is heard; those who may not have been sending for as long.
        let result = scene.add(&pods).and_then(|()| heard.await_all(&lab.pods(scene.name(), "may=yes")?));
        heard.done.store(true, Ordering::Relaxed);
        for thread in listening {
            thread.join().map_err(|_| anyhow::anyhow!("a receiver panicked"))?;
        }
        result
    })?;
    heard.none_of(&lab.pods(scene.name(), "may=not")?)
}

/// A pod that gets the address of one which has just gone is judged as what it is, not as that one.
pub(crate) fn address_is_reused(lab: &Lab) -> Result<()> {
    let mut scene = Scene::open(lab, "reuse")?;
    let web = json!({"app": "web"});
    let from = json!([{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]);
    scene.apply(&[policy("friends", json!({"podSelector": {"matchLabels": web}, "ingress": from}))])?;
    scene.add(&[pod("web", "n1", &web)])?;
    scene.serve("web", &[80])?;
    let to = scene.at("web", 80)?;
    let mut before = Vec::new();
    for (name, role, expected) in
        [("one", "friend", Outcome::Open), ("two", "stranger", Outcome::Dropped), ("three", "friend", Outcome::Open)]
    {
        give_lowest_address(lab, "n2")?;
        scene.add(&[pod(name, "n2", &json!({"role": role}))])?;
        let addresses = scene.pod(name)?.addresses().to_vec();
        ensure!(before.is_empty() || before == addresses, "{name} has got {addresses:?}, not {before:?} again");
        before = addresses;
        eventually(&scene.ask(name, &to, expected)?)?;
        scene.kubectl(&["delete", "pod", name])?;
        await_release(lab, "n2", &before)?;
    }
    Ok(())
}

/// Until `host-local` may give these addresses again, which is after the pod's object has gone.
fn await_release(lab: &Lab, node: &str, addresses: &[IpAddr]) -> Result<()> {
    let kept = || format!("{addresses:?} are not released");
    until(Duration::from_secs(20), Duration::from_millis(20), kept, || {
        let given = lab.machine(node)?.output(Command::new("ls").arg("/var/lib/cni/networks/lab"))?;
        let is_given = |address: &IpAddr| given.lines().any(|line| line == address.to_string());
        Ok((!addresses.iter().any(is_given)).then_some(()))
    })
}

/// `host-local` gives addresses in turn, and begins at the lowest where it doesn't know which it gave last.
fn give_lowest_address(lab: &Lab, node: &str) -> Result<()> {
    let script = "rm -f /var/lib/cni/networks/lab/last_reserved_ip.*";
    lab.machine(node)?.output(Command::new("sh").args(["-c", script])).map(drop)
}

/// Packets by their senders.
#[derive(Default)]
pub(crate) struct Heard {
    counts: Mutex<BTreeMap<IpAddr, usize>>,
    pub(crate) done: AtomicBool,
}

impl Heard {
    pub(crate) fn listen(&self, receiver: &UdpSocket) {
        let mut packet = [0; 128];
        while !self.done.load(Ordering::Relaxed) {
            if let Ok((_, from)) = receiver.recv_from(&mut packet) {
                *self.counts().entry(from.ip().to_canonical()).or_default() += 1;
            }
        }
    }

    /// None may have come from any address of these pods.
    pub(crate) fn none_of(&self, pods: &[Pod]) -> Result<()> {
        for pod in pods {
            for address in pod.addresses() {
                let packets = self.from(*address);
                ensure!(packets == 0, "{packets} packets of {}, {address}, got through", pod.name());
            }
        }
        Ok(())
    }

    /// How many have come from an address.
    fn from(&self, address: IpAddr) -> usize {
        self.counts().get(&address).copied().unwrap_or(0)
    }

    /// Until each pod has been heard often enough at each of its addresses.
    pub(crate) fn await_all(&self, pods: &[Pod]) -> Result<()> {
        const ENOUGH: usize = 25;
        for pod in pods {
            for address in pod.addresses() {
                let few = || format!("only {} packets of {} from {address}", self.from(*address), pod.name());
                let heard = || Ok((self.from(*address) >= ENOUGH).then_some(()));
                until(Duration::from_secs(60), Duration::from_millis(20), few, heard)?;
            }
        }
        Ok(())
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears every ICMP packet that comes to an address outside of the cluster.
pub(crate) fn receiver(lab: &Lab, at: IpAddr) -> Result<UdpSocket> {
    let (family, protocol) = match at {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let socket = lab.control().run(|| {
        let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).context("no raw socket")?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(at, 0))).context("cannot bind it")?;
        Ok(UdpSocket::from(socket))
    })?;
    socket.set_read_timeout(Some(Duration::from_millis(500))).context("cannot set a time-out")?;
    Ok(socket)
}

/// A pod that sends from its first instant, in both families: echo requests, fifty a second.
pub(crate) fn sender(name: &str, node: &str, may: bool) -> Value {
    let script = format!("ping -q -i 0.02 {OUTSIDE_V4} & exec ping -q -i 0.02 {OUTSIDE_V6}");
    let container = json!({"name": "sender", "image": BUSYBOX, "command": ["sh", "-c", script]});
    with_container(name, node, &json!({"may": if may { "yes" } else { "not" }}), container)
}

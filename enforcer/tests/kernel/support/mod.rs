//! The bed: a 'node' that is a thread in a network namespace, pods that are threads in others, a pin folder.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::fd::AsFd,
    path::PathBuf,
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::programs::links::{FdLink, PinnedLink};
use enforcer::{Clock, Enforcer, Events, Hooks, MapSizes, Mode, Options};
use enforcer_abi::{Address, Event, PodEntry};
use nix::{
    mount::{MsFlags, mount},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
};

const BPF_FS: &str = "/sys/fs/bpf";

/// Runs a test on a node of its own.
pub(crate) fn on_node(test: impl FnOnce(&mut Node) + Send + 'static) {
    let thread = thread::spawn(move || {
        assert!(nix::unistd::geteuid().is_root(), "these tests attach programs to interfaces: run them as root");
        mount_bpf_fs();
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        run("ip", "link set lo up");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
        let mut node = Node::new();
        test(&mut node);
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn mount_bpf_fs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let there = nix::sys::statfs::statfs(BPF_FS).expect("/sys/fs/bpf is there").filesystem_type();
        if there != nix::sys::statfs::BPF_FS_MAGIC {
            mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), None::<&str>)
                .expect("mounting a BPF file system");
        }
        remove_leftovers();
    });
}

/// Removes the pins of earlier runs that were killed.
fn remove_leftovers() {
    for entry in std::fs::read_dir(BPF_FS).expect("the BPF file system").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("sluice-test-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Runs a program in the calling thread's namespace.
#[track_caller]
pub(crate) fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split_whitespace()).output().expect(program);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {error}");
}

/// A node: the thread's own namespace.
pub(crate) struct Node {
    pub(crate) pin_dir: PathBuf,
    pods: u8,
}

impl Node {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { pin_dir: format!("{BPF_FS}/sluice-test-{}-{number}", std::process::id()).into(), pods: 0 }
    }

    /// Small maps, so that every test has its own at once.
    pub(crate) fn options(&self) -> Options {
        let sizes =
            MapSizes { flows: 1024, openings: 512, fragments: 128, event_bytes: 1 << 16, ..MapSizes::default() };
        Options { sizes, ..Options::new(&self.pin_dir, Clock::measure().expect("the clock")) }
    }

    pub(crate) fn open(&self) -> Enforcer {
        Enforcer::open(&self.options()).expect("opening the enforcer")
    }

    pub(crate) fn open_with(&self, hooks: Hooks) -> Enforcer {
        Enforcer::open(&Options { hooks, ..self.options() }).expect("opening the enforcer")
    }

    /// The names in a folder below the pins, sorted.
    pub(crate) fn pins(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.pin_dir.join(folder))
            .expect("the folder of pins")
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The pin of a map or program.
    pub(crate) fn pin(&self, name: &str) -> PathBuf {
        self.pin_dir.join(format!("v{}", enforcer_abi::LAYOUT_VERSION)).join(name)
    }

    /// A pod behind a veth: 10.0.N.2, the node's end 10.0.N.1.
    pub(crate) fn pod(&mut self) -> Pod {
        self.pods += 1;
        let number = self.pods;
        let mut pod = Pod::start(number);
        let (host, namespace) = (&pod.interface, &pod.namespace);
        // Fixed addresses of the links: what is held doesn't answer ARP.
        let (near, far) = (format!("02:00:00:00:01:{number:02x}"), format!("02:00:00:00:02:{number:02x}"));
        let peer = format!("peer name eth0 address {far} netns {}", namespace.display());
        run("ip", &format!("link add {host} address {near} type veth {peer}"));
        run("ip", &format!("addr add 10.0.{number}.1/24 dev {host}"));
        run("ip", &format!("link set {host} up"));
        run("ip", &format!("neigh add 10.0.{number}.2 lladdr {far} dev {host} nud permanent"));
        pod.run(move || {
            run("ip", &format!("addr add 10.0.{number}.2/24 dev eth0"));
            run("ip", "link set eth0 up");
            run("ip", &format!("neigh add 10.0.{number}.1 lladdr {near} dev eth0 nud permanent"));
            run("ip", &format!("route add default via 10.0.{number}.1"));
        });
        pod.ifindex = index_of(host);
        pod
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // With the links' pins gone the links are, and the rest goes with the namespace.
        let _ = std::fs::remove_dir_all(&self.pin_dir);
    }
}

pub(crate) fn index_of(interface: &str) -> u32 {
    nix::net::if_::if_nametoindex(interface).expect(interface)
}

/// A pod: a thread that does what it is told in its own namespace.
pub(crate) struct Pod {
    pub(crate) interface: String,
    pub(crate) ifindex: u32,
    pub(crate) number: u8,
    /// A path to its network namespace.
    pub(crate) namespace: PathBuf,
    orders: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Pod {
    fn start(number: u8) -> Self {
        let (orders, inbox) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
            ready.send(nix::unistd::gettid()).expect("the node waits for it");
            for order in inbox {
                order();
            }
        });
        let tid = is_ready.recv().expect("the pod's thread");
        Self {
            interface: format!("sluice-p{number}"),
            ifindex: 0,
            number,
            namespace: format!("/proc/{}/task/{tid}/ns/net", std::process::id()).into(),
            orders: Some(orders),
            thread: Some(thread),
        }
    }

    /// Runs something in the pod's namespace.
    #[track_caller]
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (answer, result) = mpsc::channel();
        let order = Box::new(move || {
            let _ = answer.send(work());
        });
        self.orders.as_ref().expect("it runs").send(order).expect("the pod's thread lives");
        result.recv().expect("what the pod was told to do failed")
    }

    pub(crate) fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 0, self.number, 2).into()
    }

    pub(crate) fn gateway(&self) -> IpAddr {
        Ipv4Addr::new(10, 0, self.number, 1).into()
    }

    /// The ids of the programs that its interface runs for us: to the pod, from the pod.
    pub(crate) fn programs(&self, node: &Node) -> [u32; 2] {
        [("to", "egress"), ("from", "ingress")].map(|(suffix, hook)| {
            match PinnedLink::from_pin(node.pin_dir.join("links").join(format!("{}-{suffix}", self.ifindex))) {
                Ok(link) => FdLink::from(link).info().expect("the link's information").program_id(),
                Err(_) => self.filter(hook),
            }
        })
    }

    fn filter(&self, hook: &str) -> u32 {
        let output = Command::new("tc").args(["filter", "show", "dev", &self.interface, hook]).output().expect("tc");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let id = text.split_once("sluice_").and_then(|(_, rest)| rest.split_once(" id "));
        let id = id.and_then(|(_, rest)| rest.split_whitespace().next()).and_then(|id| id.parse().ok());
        id.unwrap_or_else(|| panic!("no filter of ours: {text}"))
    }

    /// An entry that nothing isolates.
    pub(crate) fn entry(&self) -> PodEntry {
        entry(self.ifindex, self.address().into())
    }

    /// Sends a datagram to the node and says whether it arrived, or which event says that it did not.
    pub(crate) fn send(&self, events: &mut Events) -> Result<(), Event> {
        let (from, to) = self.ends();
        self.send_between(&from, &to, events)
    }

    /// A socket of the pod and one of the node.
    pub(crate) fn ends(&self) -> (UdpSocket, UdpSocket) {
        let address = self.address();
        let from = self.run(move || UdpSocket::bind((address, 0)).unwrap());
        (from, UdpSocket::bind((self.gateway(), 0)).unwrap())
    }

    /// As [`Self::send`]; twice between the same ends it is one flow.
    pub(crate) fn send_between(&self, from: &UdpSocket, socket: &UdpSocket, events: &mut Events) -> Result<(), Event> {
        let to = socket.local_addr().unwrap();
        from.send_to(b"x", to).expect("sending from the pod");
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            wait_for(&[&socket.as_fd(), &events.as_fd()], deadline);
            socket.set_nonblocking(true).unwrap();
            if socket.recv(&mut [0; 8]).is_ok() {
                return Ok(());
            }
            while let Some(event) = events.read() {
                let is_drop = event.kind == enforcer_abi::EventKind::Drop as u8;
                if is_drop && event.ifindex == self.ifindex && event.remote_port == to.port() {
                    return Err(event);
                }
            }
        }
        panic!("a datagram neither arrived nor was reported as dropped");
    }
}

impl Pod {
    /// A datagram to another pod and one back.
    pub(crate) fn exchange(&self, other: &Pod) {
        let bind = |pod: &Pod| {
            let address = pod.address();
            let socket = pod.run(move || UdpSocket::bind((address, 0)).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            socket
        };
        let (asks, answers) = (bind(self), bind(other));
        asks.send_to(b"question", answers.local_addr().unwrap()).unwrap();
        let (_, from) = answers.recv_from(&mut [0; 16]).expect("the question");
        answers.send_to(b"answer", from).unwrap();
        asks.recv(&mut [0; 16]).expect("the answer");
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn entry(ifindex: u32, v4: Address) -> PodEntry {
    PodEntry {
        ifindex,
        flags: 0,
        ingress_table: 0,
        egress_table: 0,
        midstream_until: 0,
        v4,
        v6: Address::NONE,
        slot: 0,
        ingress_everybody: 0,
        egress_everybody: 0,
        reserved: [0; 2],
    }
}

/// Waits until one of them is readable.
pub(crate) fn wait_for(sources: &[&dyn AsFd], deadline: Instant) {
    let mut fds: Vec<PollFd<'_>> =
        sources.iter().map(|source| PollFd::new(source.as_fd(), PollFlags::POLLIN)).collect();
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = PollTimeout::try_from(left.as_millis().min(60_000)).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => panic!("poll: {}", io::Error::from(error)),
    }
}

/// The mechanisms that this kernel has, and how each is asked for.
pub(crate) fn mechanisms() -> Vec<(Hooks, Mode)> {
    let old = [(Hooks::Clsact, Mode::Clsact), (Hooks::Auto, Mode::Clsact)];
    let new = [(Hooks::Clsact, Mode::Clsact), (Hooks::Auto, Mode::Tcx)];
    if has_tcx() { new.into() } else { old.into() }
}

/// Linux 6.6 and newer. A test that returns early where this is false needs TCX to make its point.
pub(crate) fn has_tcx() -> bool {
    let version = aya::util::KernelVersion::current().expect("the kernel's version");
    version >= aya::util::KernelVersion::new(6, 6, 0)
}

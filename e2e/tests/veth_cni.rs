//! Class `veth`: the chained CNI plugin, called as a runtime calls it: after the plugins that make the veth, and before any
//! process is in the pod.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::bed::{
    Agent, Fabric, Node, Outcome, Pod, Probe, Scratch, Server, Transport, Wiring, agent::program, is_root, probe_all,
};
use serde_json::{Value, json};

const NAMESPACE: &str = "shop";
const PORT: u16 = 8080;
/// What agents are started with besides.
const FLAGS: [&str; 2] = ["--listen", "127.0.0.1:0"];
/// What `ADD` answers when the policies are not in force in time.
const TRY_AGAIN: i64 = 11;
const NOT_AVAILABLE: i64 = 50;
const NOT_ENFORCED: i64 = 101;

/// A node with what a runtime has beside it. Its agent may come and go.
struct Bed {
    agent: Option<Agent>,
    node: Node,
    _fabric: Fabric,
    scratch: Scratch,
}

/// What the plugin answered.
#[derive(Debug)]
struct Reply {
    /// Exit status 0.
    success: bool,
    stdout: String,
}

impl Reply {
    /// The code of the error that it answered.
    fn code(&self) -> Option<i64> {
        serde_json::from_str::<Value>(&self.stdout).ok()?["code"].as_i64()
    }
}

impl Bed {
    /// `None` if this process may make none.
    fn start(wiring: Wiring) -> Result<Option<Self>> {
        if !is_root() {
            eprintln!("skipped: needs root");
            return Ok(None);
        }
        let fabric = Fabric::create()?;
        let node = fabric.node("n1", 1, wiring)?;
        let scratch = Scratch::create("cni")?;
        fs::create_dir(scratch.files().join("objects")).context("cannot make the folder of objects")?;
        let mut bed = Self { agent: None, node, _fabric: fabric, scratch };
        let addresses: Vec<Value> =
            bed.node.addresses().iter().map(|address| json!({"type": "InternalIP", "address": address})).collect();
        bed.put(
            "node",
            &[
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "status": {"addresses": addresses}}),
            ],
        )?;
        bed.start_agent()?;
        Ok(Some(bed))
    }

    fn start_agent(&mut self) -> Result<()> {
        let directory = self.scratch.files().join("objects");
        self.agent = Some(Agent::start_ready(&self.node, &directory, &self.scratch, &FLAGS)?);
        Ok(())
    }

    fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("there is no agent to kill")?.kill()
    }

    /// Writes a file of objects in one piece.
    fn put(&self, file: &str, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let new = self.scratch.files().join("new.json");
        fs::write(&new, list.to_string()).context("cannot write objects")?;
        let path = self.scratch.files().join("objects").join(file).with_extension("json");
        fs::rename(&new, path).context("cannot put objects in place")
    }

    /// What the API says of a pod; its label `app` is its name, its UID `uid-NAME`.
    fn put_pod(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let uid = format!("uid-{name}");
        let metadata = json!({"name": name, "namespace": NAMESPACE, "uid": uid, "labels": {"app": name}});
        let addresses: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": "n1", "containers": []},
            "status": {"podIPs": addresses},
        });
        self.put(&format!("pod-{name}"), &[object])
    }

    /// `new` may only talk to `friend`, in either direction.
    fn put_policy(&self) -> Result<()> {
        let friend = json!([{"podSelector": {"matchLabels": {"app": "friend"}}}]);
        let spec = json!({
            "podSelector": {"matchLabels": {"app": "new"}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": friend}], "egress": [{"to": friend}],
        });
        let metadata = json!({"name": "friends", "namespace": NAMESPACE});
        let policy =
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec});
        self.put("policy", &[policy])
    }

    /// A pod that the API knows.
    fn old_pod(&mut self, name: &str) -> Result<Pod> {
        let pod = self.node.pod(name)?;
        self.put_pod(name, pod.addresses())?;
        self.wait_until_enforced(name)?;
        Ok(pod)
    }

    fn wait_until_enforced(&mut self, name: &str) -> Result<()> {
        let agent = self.agent.as_mut().context("there is no agent")?;
        agent.wait_for_state(&format!("enforced {name}"), |state| state_of(state, name) == Some("enforced"))
    }

    /// What the plugins before would have answered for a pod.
    fn previous(pod: &Pod) -> Value {
        let ips: Vec<Value> = pod
            .addresses()
            .iter()
            .map(|address| json!({"interface": 1, "address": format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 })}))
            .collect();
        let host = json!({"name": pod.host_interface(), "mac": "02:00:00:00:00:01"});
        let inside = json!({"name": "eth0", "sandbox": pod.namespace().path()});
        json!({"cniVersion": "1.1.0", "interfaces": [host, inside], "ips": ips, "routes": [{"dst": "0.0.0.0/0"}], "dns": {}})
    }

    /// Calls the plugin in the node's namespace. `settings` are fields of its configuration.
    fn plugin(&self, command: &str, pod: &Pod, settings: &Value) -> Result<Reply> {
        let files = self.scratch.files();
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "net", "type": "sluice-cni", "socket": files.join("agent.sock"),
            "pinDir": self.scratch.pins(), "timeoutSeconds": 60, "prevResult": Self::previous(pod),
        });
        if let (Some(config), Some(settings)) = (config.as_object_mut(), settings.as_object()) {
            config.extend(settings.clone());
        }
        let name = pod.name();
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={name};\
             K8S_POD_UID=uid-{name}"
        );
        let mut process = Command::new(program("sluice-cni")?);
        process.env_clear().env("CNI_COMMAND", command).env("CNI_CONTAINERID", format!("container-{name}"));
        process.env("CNI_NETNS", pod.namespace().path()).env("CNI_IFNAME", "eth0").env("CNI_ARGS", arguments);
        process.env("CNI_PATH", "/opt/cni/bin").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.node.namespace().run(|| process.spawn().context("cannot start sluice-cni"))?;
        child.stdin.take().context("stdin was asked for")?.write_all(config.to_string().as_bytes())?;
        let output = child.wait_with_output().context("cannot wait for sluice-cni")?;
        Ok(Reply { success: output.status.success(), stdout: String::from_utf8(output.stdout)? })
    }

    /// `ADD`, which has to succeed and to pass the result on.
    fn add(&self, pod: &Pod, settings: &Value) -> Result<()> {
        let reply = self.plugin("ADD", pod, settings)?;
        ensure!(reply.success, "ADD failed: {}", reply.stdout);
        assert_eq!(reply.stdout, Self::previous(pod).to_string(), "the result is passed on as it came");
        Ok(())
    }

    /// The interfaces that programs are pinned for.
    fn pinned_links(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.scratch.pins().join("links")).context("there is no folder of links")?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }

    fn records(&self) -> usize {
        fs::read_dir(self.scratch.files().join("cni")).map_or(0, Iterator::count)
    }
}

fn state_of<'s>(state: &'s Value, name: &str) -> Option<&'s str> {
    state["pods"].as_array()?.iter().find(|pod| pod["name"] == name)?["state"].as_str()
}

fn serve(pod: &Pod) -> Result<Server> {
    Server::start(pod.namespace(), pod.name(), &[(Transport::Tcp, PORT), (Transport::Udp, PORT)])
}

/// Who reaches whom, in both families and by TCP and UDP.
fn ask(what: &str, questions: &[(&Pod, &Pod, Outcome)]) -> Result<()> {
    let mut probes = Vec::new();
    for (from, to, expected) in questions {
        for (address, transport) in to.addresses().iter().flat_map(|to| [(to, Transport::Tcp), (to, Transport::Udp)]) {
            let to = SocketAddr::new(*address, PORT);
            probes.push(Probe { from: from.namespace(), source: None, transport, to, expected: *expected });
        }
    }
    for (answer, probe) in probe_all(&probes)?.into_iter().zip(&probes) {
        let Probe { from, transport, to, expected, .. } = probe;
        assert_eq!(answer.outcome, *expected, "{what}: {} to {to} over {transport}", from.name());
    }
    Ok(())
}

/// The very first packet of a pod, in either direction, is judged by its policies: one to a friend arrives, none to a
/// stranger does. The API has never heard of an address of the pod.
fn from_the_first_packet(wiring: Wiring) -> Result<()> {
    use Outcome::{Dropped, Open};
    let Some(mut bed) = Bed::start(wiring)? else { return Ok(()) };
    bed.put_policy()?;
    let (friend, stranger) = (bed.old_pod("friend")?, bed.old_pod("stranger")?);
    bed.put_pod("new", &[])?;
    let new = bed.node.pod("new")?;
    let at = |pod: &Pod| pod.addresses().iter().map(|a| SocketAddr::new(*a, PORT)).collect::<Vec<_>>();
    let receivers = |pod: &Pod| at(pod).into_iter().map(|at| pod.bind_udp(at)).collect::<Result<Vec<_>>>();
    let (to_friend, to_stranger, to_new) = (receivers(&friend)?, receivers(&stranger)?, receivers(&new)?);
    // sockets that are ready to send: nothing but the sending comes after ADD
    let sender = |pod: &Pod, to: &Pod| -> Result<Vec<_>> {
        let addresses = pod.addresses().iter().zip(at(to));
        addresses.map(|(own, to)| Ok((pod.bind_udp(SocketAddr::new(*own, 0))?, to))).collect()
    };
    let senders = [sender(&new, &friend)?, sender(&new, &stranger)?, sender(&friend, &new)?, sender(&stranger, &new)?];
    bed.add(&new, &json!({}))?;
    for number in 0u8..20 {
        for (who, (socket, to)) in
            (0u8..).zip(&senders).flat_map(|(who, sockets)| sockets.iter().map(move |s| (who, s)))
        {
            socket.send_to(&[who, number], to)?;
        }
    }
    let first = |sockets: &[std::net::UdpSocket]| -> Result<Vec<[u8; 2]>> {
        sockets
            .iter()
            .map(|socket| {
                let mut packet = [0; 2];
                socket.set_read_timeout(Some(Duration::from_secs(10)))?;
                socket.recv(&mut packet).context("the first packet to a friend is lost")?;
                Ok(packet)
            })
            .collect()
    };
    assert_eq!(first(&to_friend)?, [[0, 0]; 2], "the first packet of the pod arrives");
    assert_eq!(first(&to_new)?, [[2, 0]; 2], "the first packet to the pod arrives, and it is its friend's");
    let state = bed.agent.as_ref().context("there is an agent")?.state()?;
    assert_eq!(state_of(&state, "new"), Some("enforced"));

    drop(to_new);
    drop(to_friend);
    let _servers = [serve(&friend)?, serve(&new)?];
    ask(
        &format!("{wiring:?}"),
        &[(&new, &friend, Open), (&friend, &new, Open), (&new, &stranger, Dropped), (&stranger, &new, Dropped)],
    )?;
    for socket in &to_stranger {
        socket.set_nonblocking(true)?;
        assert!(socket.recv(&mut [0; 2]).is_err(), "{wiring:?}: not one packet of the pod has reached a stranger");
    }
    let reply = bed.plugin("CHECK", &new, &json!({}))?;
    ensure!(reply.success, "CHECK failed: {}", reply.stdout);
    ensure!(bed.plugin("STATUS", &new, &json!({}))?.success, "the agent is ready");
    // what the API says later changes nothing
    bed.put_pod("new", new.addresses())?;
    bed.wait_until_enforced("new")?;
    ask(&format!("{wiring:?}, known to the API"), &[(&friend, &new, Open), (&stranger, &new, Dropped)])?;
    // twice is once
    for _ in 0..2 {
        ensure!(bed.plugin("DEL", &new, &json!({}))?.success, "DEL never fails");
    }
    assert_eq!(bed.records(), 0);
    Ok(())
}

#[test]
fn from_the_first_packet_point_to_point() -> Result<()> {
    from_the_first_packet(Wiring::PointToPoint)
}

#[test]
fn from_the_first_packet_over_a_bridge() -> Result<()> {
    from_the_first_packet(Wiring::Bridge)
}

/// Without an agent a pod does not start, or it starts held; the next agent knows it by the plugin's record, though the API
/// says no address. An `ADD` that waits for that agent ends well. What is taken down leaves nothing.
#[test]
fn pods_born_while_no_agent_runs() -> Result<()> {
    use Outcome::{Dropped, Open};
    let Some(mut bed) = Bed::start(Wiring::PointToPoint)? else { return Ok(()) };
    bed.put_policy()?;
    let (friend, stranger) = (bed.old_pod("friend")?, bed.old_pod("stranger")?);
    let before = bed.pinned_links()?.len();
    bed.kill_agent()?;
    bed.put_pod("new", &[])?;
    let new = bed.node.pod("new")?;
    let _servers = [serve(&friend)?, serve(&stranger)?, serve(&new)?];
    let (fail, hold) = (json!({"timeoutSeconds": 1}), json!({"timeoutSeconds": 1, "onAgentDown": "hold"}));

    let reply = bed.plugin("ADD", &new, &fail)?;
    assert_eq!((reply.success, reply.code()), (false, Some(TRY_AGAIN)), "{}", reply.stdout);
    assert!(reply.stdout.contains("no agent listens at"), "{}", reply.stdout);
    let nothing = [(&friend, &new, Dropped), (&new, &friend, Dropped), (&stranger, &new, Dropped)];
    ask("after an ADD that failed", &nothing)?;
    ensure!(bed.plugin("DEL", &new, &fail)?.success, "DEL never fails");
    assert_eq!(bed.plugin("STATUS", &new, &fail)?.code(), Some(NOT_AVAILABLE));

    bed.add(&new, &hold)?;
    ask("after an ADD that left it held", &nothing)?;
    ensure!(bed.plugin("CHECK", &new, &hold)?.success, "it is held, and no agent can say more");
    ensure!(bed.plugin("STATUS", &new, &hold)?.success, "pods can start held");

    bed.put_pod("waiting", &[])?;
    let waiting = bed.node.pod("waiting")?;
    let directory = bed.scratch.files().join("objects");
    let (added, agent) = thread::scope(|scope| {
        let adding = scope.spawn(|| bed.add(&waiting, &json!({"timeoutSeconds": 90})));
        let agent = Agent::start_ready(&bed.node, &directory, &bed.scratch, &FLAGS);
        (adding.join(), agent)
    });
    bed.agent = Some(agent?);
    added.map_err(|_panic| anyhow::anyhow!("ADD panicked"))??;
    let _server = serve(&waiting)?;
    bed.wait_until_enforced("new")?;
    ask(
        "with the next agent",
        &[
            (&friend, &new, Open),
            (&new, &friend, Open),
            (&stranger, &new, Dropped),
            (&new, &stranger, Dropped),
            (&new, &waiting, Dropped),
            (&stranger, &waiting, Open),
        ],
    )?;

    // taken down without an agent
    bed.kill_agent()?;
    fs::remove_file(bed.scratch.pins().join("links").join(format!("{}-to", waiting.host_index())))?;
    let reply = bed.plugin("CHECK", &waiting, &hold)?;
    assert_eq!(reply.code(), Some(NOT_ENFORCED), "{}", reply.stdout);
    ensure!(bed.plugin("DEL", &new, &fail)?.success, "DEL never fails");
    drop((new, waiting));
    let reply = bed.plugin("GC", &friend, &json!({"cni.dev/valid-attachments": []}))?;
    ensure!(reply.success, "GC failed: {}", reply.stdout);
    assert_eq!((bed.pinned_links()?.len(), bed.records()), (before, 0), "nothing of them is left");
    Ok(())
}

//! Class `veth`: packets of kinds that no test run makes, over real veths past a real agent: those of 64 kB and more, and
//! fragments, among them forwarded ones that look as if the node had made them.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    bed::{
        OUTSIDE_V6, Pod, RawSocket, Site, Wiring,
        bulk::{self, Flood, Sink, Way},
        is_root,
        site::{Policy, peer},
    },
    wait::until,
};
use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, UdpHeader,
};
use serde_json::{Value, json};

const PORT: u16 = 9000;
/// What one direction of one family carries.
const MEGABYTES: usize = 32;
/// The most that a segment of TCP carries over Ethernet of 1,500 bytes.
const SEGMENT: u64 = 1448;
/// How long nothing may arrive until it counts as nothing.
const SILENCE: Duration = Duration::from_millis(300);

fn entitled() -> bool {
    if !is_root() {
        eprintln!("skipped: needs root");
    }
    is_root()
}

/// From `pod` to the port.
fn from(pod: &Pod) -> Value {
    json!([{"from": [peer(pod)], "ports": [{"port": PORT}, {"port": PORT, "protocol": "UDP"}]}])
}

#[test]
fn packets_of_64_kilobytes_and_more() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let mut site = Site::start(Wiring::PointToPoint, &[])?;
    let (a, b, c) = (site.pod("a")?, site.pod("b")?, site.pod("c")?);
    let sink = Sink::open(&b, PORT)?;
    let rule = json!([{"to": [peer(&b)], "ports": [{"port": PORT}]}]);
    let policies = |number: u32, source: &Pod| {
        [
            Policy::ingress(&format!("b-{number}"), &b, from(source)),
            Policy::egress(&format!("a-{number}"), &a, rule.clone()),
        ]
    };
    site.enforce(&policies(1, &a))?;
    for address in b.addresses() {
        let to = SocketAddr::new(*address, PORT);
        carries(&a, &b, to, &sink).with_context(|| to.to_string())?;
        let before = sink.received();
        ensure!(c.connect(to, SILENCE).is_err(), "nobody allows c to connect to {to}");
        ensure!(sink.received() == before, "and nothing of it arrives");
    }

    big_tcp(&site, &a, &b, &sink)?;

    // A stream of large packets that is no longer allowed ends in mid-air.
    for (number, address) in (2..).step_by(2).zip(b.addresses()) {
        let flood = Flood::start(&a, SocketAddr::new(*address, PORT))?;
        let start = sink.received();
        wait(|| sink.received() > start + 1_000_000).context("the stream doesn't flow")?;
        site.enforce(&policies(number, &c))?;
        let (packets, _) = bulk::received(b.namespace(), "eth0")?;
        // What the socket had taken before is read a moment later.
        let cut = settled(|| sink.received());
        std::thread::sleep(SILENCE);
        assert_eq!(sink.received(), cut, "{address}: a stream that is no longer allowed flows on");
        let (later, _) = bulk::received(b.namespace(), "eth0")?;
        // Its last packets may have been between the two hooks; what TCP repeats afterwards must not come.
        assert!(later - packets < 100, "{address}: {} packets came after the change", later - packets);
        drop(flood);
        site.enforce(&policies(number + 1, &a))?;
    }
    sink.close()
}

/// Sends by both ways, and sees that the packets are larger than a segment.
fn carries(a: &Pod, b: &Pod, to: SocketAddr, sink: &Sink) -> Result<()> {
    let folder = std::env::temp_dir();
    let name = folder.join(format!("sluice-{}-bulk-{}", std::process::id(), b.host_index()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&name)?;
    // Without a name it goes with the last who has it open.
    std::fs::remove_file(&name)?;
    for way in [Way::Write, Way::SendFile] {
        let bytes = MEGABYTES << 20;
        let (packets, before) = (bulk::received(b.namespace(), "eth0")?.0, sink.received());
        bulk::send(a, to, bytes, way, &mut file)?;
        let packets = bulk::received(b.namespace(), "eth0")?.0 - packets;
        let arrived = sink.received() - before;
        assert_eq!(arrived, bytes as u64, "{way:?}: what was sent arrives whole");
        assert!(packets < arrived / SEGMENT / 2, "{way:?}: {packets} packets of {arrived} bytes are no large ones");
    }
    Ok(())
}

/// BIG TCP: packets longer than an IP header can say.
fn big_tcp(site: &Site, a: &Pod, b: &Pod, sink: &Sink) -> Result<()> {
    const SIZE: u32 = 120_000;
    // BBR, which may be the machine's default, makes none above 64 kB.
    a.namespace().sysctl("ipv4/tcp_congestion_control", "reno")?;
    for address in b.addresses() {
        let (family, since) = if address.is_ipv4() { ("_ipv4", "6.3") } else { ("", "5.19") };
        let sizes = |link: &str| ["gso", "gro"].map(|what| format!("link set {link} {what}{family}_max_size {SIZE}"));
        let set = [
            (a.namespace(), "eth0"),
            (site.node.namespace(), a.host_interface()),
            (site.node.namespace(), b.host_interface()),
            (b.namespace(), "eth0"),
        ]
        .into_iter()
        .try_for_each(|(namespace, link)| namespace.ip(&sizes(link)));
        if let Err(error) = set {
            eprintln!("not run: BIG TCP to {address}, which needs Linux {since} and an `ip` of that age: {error:#}");
            continue;
        }
        let to = SocketAddr::new(*address, PORT);
        let seen = RawSocket::open(b.namespace(), "eth0")?;
        let flood = Flood::start(a, to)?;
        let large = seen.receive(Duration::from_secs(5), |frame| frame.len() > usize::from(u16::MAX) + 100)?;
        if large.is_none() {
            eprintln!("not run: BIG TCP to {address}: this kernel makes no packet longer than 64 kB here");
            continue;
        }
        let before = sink.received();
        wait(|| sink.received() > before + 10_000_000).with_context(|| format!("{to}: BIG TCP doesn't flow"))?;
        drop(flood);
    }
    Ok(())
}

#[test]
fn fragments_in_both_orders() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let mut site = Site::start(Wiring::PointToPoint, &[])?;
    let (a, b) = (site.pod("a")?, site.pod("b")?);
    let wire = RawSocket::open(a.namespace(), "eth0")?;
    let next_hop = RawSocket::open(site.node.namespace(), a.host_interface())?.hardware_address;
    let link = [next_hop, wire.hardware_address];
    let all_ports = json!([{"from": [peer(&a)]}]);
    let mut id = 0x51ce_u32;
    // What is allowed, and whether the first fragment may come last.
    for (name, rules, in_order, reversed) in [
        ("nothing", json!([]), false, false),
        ("the-port", from(&a), true, false),
        ("all-ports", all_ports, true, true),
    ] {
        site.enforce(&[Policy::ingress(name, &b, rules)])?;
        for (source, destination) in a.addresses().iter().zip(b.addresses()) {
            let ends = [SocketAddr::new(*source, 4000), SocketAddr::new(*destination, PORT)];
            let socket = b.bind_udp(ends[1])?;
            socket.set_read_timeout(Some(SILENCE)).context("cannot set a time-out")?;
            for (order, expected) in [("in order", in_order), ("reversed", reversed)] {
                id += 1;
                let payload: Vec<u8> = id.to_be_bytes().repeat(800);
                let mut frames = fragments(link, ends, &payload, id)?;
                assert_eq!(frames.len(), 3);
                if order == "reversed" {
                    frames.reverse();
                }
                frames.iter().try_for_each(|frame| wire.send(frame))?;
                let arrived = receive(&socket)?;
                let what = format!("{name} allowed, {destination}, {order}");
                assert_eq!(arrived.is_some(), expected, "{what}");
                assert!(arrived.is_none_or(|arrived| arrived == payload), "{what}: in one piece");
            }
            // The kernel's own fragments.
            let client = a.bind_udp(SocketAddr::new(*source, 0))?;
            let payload: Vec<u8> = b"fragments".repeat(700);
            client.send_to(&payload, ends[1]).context("cannot send")?;
            assert_eq!(receive(&socket)?.is_some(), in_order, "{name} allowed, {destination}, by the kernel");
        }
    }
    Ok(())
}

/// A datagram in fragments of 1,200 bytes, first to last, as Ethernet frames. `link`: to and from.
fn fragments(link: [[u8; 6]; 2], ends: [SocketAddr; 2], payload: &[u8], id: u32) -> Result<Vec<Vec<u8>>> {
    const PART: usize = 1200;
    let length = u16::try_from(8 + payload.len())?;
    let [from, to] = ends;
    let mut udp = UdpHeader { source_port: from.port(), destination_port: to.port(), length, checksum: 0 };
    udp.checksum = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => udp.calc_checksum_ipv4_raw(from.octets(), to.octets(), payload)?,
        (IpAddr::V6(from), IpAddr::V6(to)) => udp.calc_checksum_ipv6_raw(from.octets(), to.octets(), payload)?,
        _ => anyhow::bail!("{from} and {to} are of two families"),
    };
    let packet = [&udp.to_bytes()[..], payload].concat();
    let count = packet.len().div_ceil(PART);
    let frames = packet.chunks(PART).enumerate().map(|(index, part)| {
        let offset = IpFragOffset::try_new(u16::try_from(index * PART / 8)?)?;
        let more = index + 1 < count;
        let (ether_type, headers) = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip =
                    Ipv4Header::new(u16::try_from(part.len())?, 64, IpNumber::UDP, from.octets(), to.octets())?;
                ip.identification = u16::try_from(id & 0xffff)?;
                (ip.dont_fragment, ip.more_fragments, ip.fragment_offset) = (false, more, offset);
                ip.header_checksum = ip.calc_header_checksum();
                (EtherType::IPV4, ip.to_bytes().to_vec())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let fragment = Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, id);
                let ip = Ipv6Header {
                    payload_length: u16::try_from(8 + part.len())?,
                    next_header: IpNumber::IPV6_FRAGMENTATION_HEADER,
                    hop_limit: 64,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                (EtherType::IPV6, [&ip.to_bytes()[..], &fragment.to_bytes()].concat())
            }
            _ => anyhow::bail!("both ends are of one family"),
        };
        let [destination, source] = link;
        let ethernet = Ethernet2Header { destination, source, ether_type };
        Ok([&ethernet.to_bytes()[..], &headers, part].concat())
    });
    frames.collect()
}

/// The kernel forgets where a forwarded IPv6 packet came from when it puts it together for connection tracking, and takes
/// it apart again where the way out needs more room before the packet than there is: here a bridge with a VXLAN port.
/// Without policies such fragments are seen to be there; at an isolated pod they are not taken for the node's own.
#[test]
fn forwarded_fragments_that_look_as_if_the_node_had_made_them() -> Result<()> {
    if !entitled() {
        return Ok(());
    }
    let mut site = Site::start(Wiring::Bridge, &[])?;
    let pod = site.pod("a")?;
    let own = pod.v6().context("a pod has an IPv6 address")?;
    let (node, outside, link) = (site.node.namespace(), site.fabric.outside(), pod.host_interface());
    node.ip(&[
        "link add overlay type vxlan id 7 dstport 4789 dev eth0 group 239.1.1.1",
        "link set overlay master cni0 up",
        // Copies of fragments that did not come by the way that they came by.
        "link add witness type veth peer name copies",
        "link set witness up",
        "link set copies up",
    ])?;
    node.nft(
        "table inet track {\n chain forward {\n type filter hook forward priority 0;\n ct state new counter\n }\n}\n",
    )?;
    node.tc(&[
        format!("qdisc add dev {link} clsact"),
        format!("filter add dev {link} egress pref 10 protocol ipv6 u32 match u32 0 0 indev eth0 flowid 1:1"),
        format!(
            "filter add dev {link} egress pref 20 protocol ipv6 u32 match ip6 protocol 44 0xff flowid 1:2 \
             action mirred egress mirror dev witness"
        ),
    ])?;

    let to = SocketAddr::new(own, PORT);
    let socket = pod.bind_udp(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(2))).context("cannot set a time-out")?;
    let stranger = outside.run(|| UdpSocket::bind((OUTSIDE_V6, 0)).context("cannot bind the stranger's address"))?;
    let payload = vec![7; 4000];
    let send = || stranger.send_to(&payload, to).context("cannot send").map(drop);

    let copies = RawSocket::open(node, "copies")?;
    // The first one may only tell the stranger how large a packet may be on this way.
    send()?;
    receive(&socket)?;
    send()?;
    assert!(receive(&socket)?.is_some(), "without policies the stranger's datagram arrives");
    let first = copies.receive(Duration::from_secs(2), |frame| fragment(frame) == Some(0))?;
    ensure!(first.is_some(), "this kernel doesn't forget where a forwarded fragment came from: nothing is shown here");

    let arriving = RawSocket::open(pod.namespace(), "eth0")?;
    site.enforce(&[Policy::ingress("isolated", &pod, json!([]))])?;
    for _ in 0..5 {
        send()?;
    }
    let arrived = arriving.receive(SILENCE, |frame| fragment(frame).is_some())?;
    assert!(arrived.is_none(), "a stranger's fragment has reached an isolated pod");
    // And a rule lets them in whole.
    let block = json!([{"from": [{"ipBlock": {"cidr": format!("{OUTSIDE_V6}/128")}}]}]);
    site.enforce(&[Policy::ingress("stranger", &pod, block)])?;
    send()?;
    assert!(receive(&socket)?.is_some(), "what a rule allows arrives");
    Ok(())
}

/// The offset in bytes, if the frame is an IPv6 fragment.
fn fragment(frame: &[u8]) -> Option<u16> {
    let is_fragment = frame.get(12..14)? == [0x86, 0xdd] && *frame.get(20)? == 44;
    is_fragment.then(|| u16::from_be_bytes([frame[56], frame[57]]) & 0xfff8)
}

/// The next datagram, if one comes within the socket's time-out.
fn receive(socket: &UdpSocket) -> Result<Option<Vec<u8>>> {
    let mut datagram = vec![0; 1 << 16];
    match socket.recv(&mut datagram) {
        Ok(length) => Ok(Some(datagram[..length].to_vec())),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("cannot receive"),
    }
}

fn wait(mut condition: impl FnMut() -> bool) -> Result<()> {
    let late = || "not within 20 s".to_owned();
    until(Duration::from_secs(20), Duration::from_millis(2), late, || Ok(condition().then_some(())))
}

/// A number once it has stayed the same for a while.
fn settled(number: impl Fn() -> u64) -> u64 {
    loop {
        let before = number();
        std::thread::sleep(Duration::from_millis(50));
        if number() == before {
            return before;
        }
    }
}

//! One owner, processes that die, layouts that change, and the way out.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use enforcer::{Contents, Enforcer, Hooks, LoadError, OpenError, Options, PinsError, preflight::PreflightError};
use enforcer_abi::{Op, map};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    Test,
    support::{Node, Pod, index_of, mechanisms, on_node, run},
    tables::peer,
};

/// Tells a process of this program that it is to be killed, and where its pins are.
pub(crate) const CHILD: &str = "SLUICE_TEST_PIN_DIR";

pub(crate) const TESTS: &[Test] = &tests![
    a_second_owner_is_refused_and_told_who_the_first_one_is,
    pins_have_to_be_on_a_bpf_file_system,
    signals_do_not_keep_programs_from_being_loaded,
    enforcement_outlives_a_killed_process,
    maps_of_another_layout_stay_in_force_until_the_take_over,
    a_take_over_that_was_cut_short_is_made_again,
    a_pinned_map_of_another_shape_is_refused,
    cleanup_leaves_no_trace,
];

fn a_second_owner_is_refused_and_told_who_the_first_one_is() {
    on_node(|node| {
        let first = node.open();
        let error = Enforcer::open(&node.options()).map(drop).unwrap_err();
        let OpenError::Pins(PinsError::InUse { holder, .. }) = &error else { panic!("{error:?}") };
        assert!(holder.starts_with(&format!("process {}", std::process::id())), "{holder}");
        let error = Enforcer::cleanup(&node.pin_dir).unwrap_err();
        assert!(matches!(error, OpenError::Pins(PinsError::InUse { .. })), "{error:?}");
        drop(first);
        node.open();
    });
}

fn pins_have_to_be_on_a_bpf_file_system() {
    on_node(|node| {
        let options = Options { pin_dir: "/tmp/sluice-pins".into(), ..node.options() };
        let error = Enforcer::open(&options).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Preflight(PreflightError::NoBpfFs { .. })), "{error:?}");
        assert!(!std::path::Path::new("/tmp/sluice-pins").exists());
    });
}

/// Not a test: the process that others stop, continue and kill.
pub(crate) fn child_that_is_killed(pin_dir: &OsStr) {
    let interface = std::env::var("SLUICE_TEST_INTERFACE").unwrap();
    let clock = enforcer::Clock::measure().unwrap();
    let hooks = if std::env::var("SLUICE_TEST_CLSACT").is_ok() { Hooks::Clsact } else { Hooks::Auto };
    let mut enforcer = Enforcer::open(&Options { hooks, ..Options::new(pin_dir, clock) }).unwrap();
    enforcer.attach(index_of(&interface)).unwrap();
    enforcer.apply(&[Op::PutPeer(peer([0, 1], 2))]).unwrap();
    println!("attached");
    // Until it is killed.
    let _ = std::io::stdin().read_line(&mut String::new());
}

fn start(node: &Node, pod: &Pod, hooks: Hooks) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(CHILD, &node.pin_dir).env("SLUICE_TEST_INTERFACE", &pod.interface);
    if hooks == Hooks::Clsact {
        command.env("SLUICE_TEST_CLSACT", "1");
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

/// Waits until the child has attached its interface, or ended.
fn has_attached(child: &mut Child) -> bool {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.map_while(Result::ok).any(|line| line == "attached")
}

/// The verifier gives up when a signal comes, whatever it is.
fn signals_do_not_keep_programs_from_being_loaded() {
    on_node(|node| {
        let pod = node.pod();
        let mut child = start(node, &pod, Hooks::Auto);
        let pid = Pid::from_raw(child.id().cast_signed());
        let (ended, deadline) = (|state: char| matches!(state, 'Z' | 'X'), Instant::now() + Duration::from_secs(60));
        let await_state = |is_reached: &dyn Fn(char, u64) -> bool| {
            loop {
                let (state, worked) = state(pid);
                if is_reached(state, worked) || ended(state) {
                    return;
                }
                assert!(Instant::now() < deadline, "the child's state is {state}");
                thread::yield_now();
            }
        };
        // The last map is made before the first program is loaded.
        while !node.pin(map::ENDPOINTS).exists() {
            assert!(Instant::now() < deadline && !ended(state(pid).0), "the child has made no maps");
            thread::yield_now();
        }
        for _ in 0..4 {
            let (_, before) = state(pid);
            await_state(&|_, worked| worked > before);
            kill(pid, Signal::SIGSTOP).unwrap();
            await_state(&|state, _| state == 'T');
            kill(pid, Signal::SIGCONT).unwrap();
        }
        let attached = has_attached(&mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(attached, "its programs were loaded all the same");
    });
}

/// The state of a process, and how long the kernel has worked for it, in ticks (proc_pid_stat(5)).
fn state(process: Pid) -> (char, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let mut fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    (fields.next().unwrap().parse().unwrap(), fields.nth(11).unwrap().parse().unwrap())
}

fn enforcement_outlives_a_killed_process() {
    for hooks in [Hooks::Auto, Hooks::Clsact] {
        on_node(move |node| {
            let pod = node.pod();
            let mut child = start(node, &pod, hooks);
            let attached = has_attached(&mut child);
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(attached, "the child attached before it was killed");

            let events = aya::maps::MapData::from_pin(node.pin(map::EVENTS)).unwrap();
            let events = aya::maps::RingBuf::try_from(aya::maps::Map::RingBuf(events)).unwrap();
            drop(events);
            let mut enforcer = node.open_with(hooks);
            let mut events = enforcer.events().unwrap();
            assert!(pod.send(&mut events).is_err(), "{hooks:?}: still held");
            assert_eq!(enforcer.contents().unwrap().peers, [peer([0, 1], 2)]);
            assert!(enforcer.attached().unwrap()[0].complete);
        });
    }
}

/// Layouts before and after this one: upgrades may be taken back.
fn maps_of_another_layout_stay_in_force_until_the_take_over() {
    for (hooks, mode) in mechanisms() {
        for other in ["v1", "v3"] {
            on_node(move |node| {
                let (pod, elsewhere) = (node.pod(), node.pod());
                let mut enforcer = node.open_with(hooks);
                enforcer.put_pod(pod.entry()).unwrap();
                enforcer.attach(pod.ifindex).unwrap();
                // one that nobody tells the new tables of
                enforcer.attach(elsewhere.ifindex).unwrap();
                enforcer.apply(&[Op::PutPeer(peer([0, 1], 2))]).unwrap();
                drop(enforcer);
                // As an agent with that layout would have left it.
                std::fs::rename(node.pin_dir.join("v2"), node.pin_dir.join(other)).unwrap();
                let before = pod.programs(node);

                let mut enforcer = node.open_with(hooks);
                let mut events = enforcer.events().unwrap();
                assert!(enforcer.awaits_take_over().unwrap());
                assert_eq!(enforcer.contents().unwrap(), Contents::default(), "the new tables begin empty");
                assert_eq!(pod.programs(node), before, "{mode:?}");
                assert!(node.pins("").contains(&other.to_owned()));
                assert_eq!(pod.send(&mut events), Ok(()), "{mode:?}: by the old program and its entry of the pod");
                enforcer.put_pod(pod.entry()).unwrap();
                enforcer.take_over().unwrap();
                assert!(before.iter().all(|id| !pod.programs(node).contains(id)), "{mode:?}");
                assert!(!enforcer.awaits_take_over().unwrap());
                assert_eq!(node.pins(""), ["links", "v2"]);
                assert_eq!(pod.send(&mut events), Ok(()), "{mode:?}: by the new program and its entry");
                assert!(elsewhere.send(&mut events).is_err(), "{mode:?}: held, for want of an entry");
                enforcer.delete_pod(pod.ifindex).unwrap();
                assert!(pod.send(&mut events).is_err(), "{mode:?}: by the new program");
            });
        }
    }
}

/// Not even an agent that was killed after the new tables stood and before it took over leaves less than was in force.
fn a_take_over_that_was_cut_short_is_made_again() {
    on_node(|node| {
        let pod = node.pod();
        let mut enforcer = node.open();
        enforcer.put_pod(pod.entry()).unwrap();
        enforcer.attach(pod.ifindex).unwrap();
        drop(enforcer);
        std::fs::rename(node.pin_dir.join("v2"), node.pin_dir.join("v0")).unwrap();
        let before = pod.programs(node);
        drop(node.open());

        let mut enforcer = node.open();
        let mut events = enforcer.events().unwrap();
        assert!(enforcer.awaits_take_over().unwrap());
        assert_eq!(pod.programs(node), before);
        assert_eq!(pod.send(&mut events), Ok(()));
        enforcer.put_pod(pod.entry()).unwrap();
        enforcer.take_over().unwrap();
        assert_eq!((pod.send(&mut events), node.pins("")), (Ok(()), vec!["links".to_owned(), "v2".to_owned()]));
    });
}

fn a_pinned_map_of_another_shape_is_refused() {
    on_node(|node| {
        drop(node.open());
        std::fs::remove_file(node.pin(map::PEERS)).unwrap();
        std::fs::rename(node.pin(map::ROWS), node.pin(map::PEERS)).unwrap();
        let error = Enforcer::open(&node.options()).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Load(LoadError::ForeignMap { .. })), "{error:?}");
    });
}

fn cleanup_leaves_no_trace() {
    for hooks in [Hooks::Auto, Hooks::Clsact] {
        on_node(move |node| {
            let pods = [node.pod(), node.pod()];
            // Somebody else's filter stays, and so does the qdisc that holds it.
            run("tc", &format!("qdisc add dev {} clsact", pods[1].interface));
            let other = "protocol ip prio 7 u32 match u32 0 0";
            run("tc", &format!("filter add dev {} egress {other}", pods[1].interface));
            let mut enforcer = node.open_with(hooks);
            for pod in &pods {
                enforcer.attach(pod.ifindex).unwrap();
            }
            drop(enforcer);
            let released = Enforcer::cleanup(&node.pin_dir).unwrap();
            assert_eq!(released, [pods[0].ifindex, pods[1].ifindex]);
            assert!(!node.pin_dir.exists());
            let show = |what: &str, pod: usize, rest: &str| {
                let line = format!("{what} show dev {} {rest}", pods[pod].interface);
                let output = Command::new("tc").args(line.split_whitespace()).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            };
            assert!(!show("qdisc", 0, "").contains("clsact"));
            assert!(show("qdisc", 1, "").contains("clsact"));
            assert!(show("filter", 1, "egress").contains("u32"));
            assert!(!show("filter", 1, "egress").contains("sluice"));
            assert_eq!(Enforcer::cleanup(&node.pin_dir).unwrap(), [] as [u32; 0], "cleaning up twice is fine");
        });
    }
}

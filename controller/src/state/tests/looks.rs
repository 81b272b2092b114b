//! A look at the node takes its time, and keeps nobody waiting but those who wait for it.

use std::sync::mpsc as gates;

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{cni::call, *};
use crate::{
    cni::{HangUp, Standing},
    links::{Hint, Links},
    state::{Inputs, Request},
};

const LONG: Duration = Duration::from_secs(60);

/// A node that is looked at for as long as nobody opens the gate.
struct Slow {
    begun: mpsc::UnboundedSender<()>,
    gate: gates::Receiver<()>,
}

impl Looks for Slow {
    fn look(&mut self, _: &dyn Fn(u32) -> bool) -> Result<Links, Fault> {
        self.begun.send(()).unwrap();
        self.gate.recv_timeout(LONG).unwrap();
        Ok(Links { veths: vec![link(5, "10.0.0.5")], ..Links::default() })
    }
}

/// Runs a state over a slow node, and what is to happen to it: hints, requests, looks that have begun, the gate.
fn run<F: Future<Output = ()>>(
    fake: Fake,
    script: impl FnOnce(mpsc::Sender<Hint>, mpsc::Sender<Request>, mpsc::UnboundedReceiver<()>, gates::Sender<()>) -> F,
) {
    let (begun, mut looks) = mpsc::unbounded_channel();
    let (open, gate) = gates::channel();
    open.send(()).unwrap();
    let applier = Applier::new(fake, Binder::new(Exclusions::default()), Vec::new(), &[], Instant::now());
    let state = state(applier, Slow { begun, gate });
    looks.try_recv().expect("the one before it runs");
    let (hints_in, hints) = mpsc::channel(1);
    let (_updates, updates) = mpsc::channel(1);
    let (requests_in, requests) = mpsc::channel(1);
    let (stop, stopping) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let happens = script(hints_in.clone(), requests_in.clone(), looks, open);
    runtime.block_on(async {
        let running = state.run(Inputs { updates, hints, requests, stopping });
        let ends = async {
            happens.await;
            stop.send(true).unwrap();
        };
        let (ended, ()) = tokio::join!(running, ends);
        ended.unwrap();
    });
}

fn hint(veths: Vec<Link>) -> Hint {
    Hint { links: veths.iter().map(|link| link.index).collect(), veths, seen: Instant::now() }
}

async fn ask<T>(requests: &mpsc::Sender<Request>, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> T {
    let (answer, answered) = oneshot::channel();
    requests.send(request(answer)).await.unwrap();
    timeout(LONG, answered).await.expect("the look keeps it waiting").unwrap()
}

#[test]
fn a_look_keeps_nobody_waiting_but_who_waits_for_it() {
    run(Fake::default(), async |hints, requests, mut looks, open| {
        hints.send(hint(Vec::new())).await.unwrap();
        looks.recv().await.unwrap();
        ask(&requests, Request::Ping).await;
        let (answer, mut answered) = oneshot::channel();
        requests.send(Request::Call(call("c", "a", "u", 5, "10.0.0.5"), Duration::ZERO, answer)).await.unwrap();
        ask(&requests, Request::Ping).await;
        open.send(()).unwrap();
        looks.recv().await.unwrap();
        ask(&requests, Request::Ping).await;
        assert!(answered.try_recv().is_err(), "the first look had begun before the interface was there");
        open.send(()).unwrap();
        assert!(matches!(timeout(LONG, answered).await.unwrap(), Ok(Standing::Held { .. })));
    });
}

#[test]
fn what_goes_before_it_was_looked_at_is_not_taken_up() {
    run(Fake::default(), async |_, requests, mut looks, open| {
        let (answer, answered) = oneshot::channel();
        requests.send(Request::Call(call("c", "a", "u", 5, "10.0.0.5"), LONG, answer)).await.unwrap();
        looks.recv().await.unwrap();
        let gone = HangUp { container_id: "c".into(), container_interface: Some("eth5".into()) };
        ask(&requests, |answer| Request::HangUp(gone, answer)).await;
        assert!(timeout(LONG, answered).await.unwrap().is_err(), "nobody will answer");
        open.send(()).unwrap();
    });
}

#[test]
fn a_newcomer_is_held_while_a_look_goes_on() {
    let fake = Fake::default();
    let newcomer = Link { index: 9, name: "eth9".into(), namespace: Some(9), ..Link::default() };
    run(fake.clone(), async |hints, requests, mut looks, open| {
        hints.send(hint(Vec::new())).await.unwrap();
        looks.recv().await.unwrap();
        fake.done();
        hints.send(hint(vec![newcomer])).await.unwrap();
        ask(&requests, Request::Ping).await;
        assert_eq!(fake.done(), ["pod 9 held, setup", "attach 9"]);
        // what this one finds is older
        open.send(()).unwrap();
        looks.recv().await.unwrap();
        ask(&requests, Request::Ping).await;
        assert_eq!(fake.done(), Vec::<String>::new(), "a look that had begun before says nothing of it");
        open.send(()).unwrap();
        looks.recv().await.unwrap();
        ask(&requests, Request::Ping).await;
        assert_eq!(fake.done(), ["detach 9", "no pod 9"], "this one is newer, and has not found it");
        open.send(()).unwrap();
    });
}

//! Pods that come and go, many at a time, while others talk.

use std::{sync::atomic::Ordering, thread};

use anyhow::{Result, anyhow};
use e2e::lab::{Lab, OUTSIDE_V4, OUTSIDE_V6};
use serde_json::{Value, json};

use crate::{
    birth::{Heard, receiver, sender},
    scene::policy,
    servers,
    traffic::Traffic,
};

/// How many pods come, and how many of them at a time: some of each batch may send, the others not.
const PODS: usize = 200;
const AT_A_TIME: usize = 20;
const FREE: usize = 2;

/// None of the pods that may not send is heard, from the first packet to the last, and what others send meanwhile arrives
/// or not as before.
pub(crate) fn pods_come_and_go(lab: &Lab) -> Result<()> {
    let scene = servers::open(lab, "churn")?;
    // That of all of the scene's pods would shut those as well that may send.
    scene.kubectl(&["delete", "networkpolicy", "out", "deny-all"])?;
    let shut = json!({"podSelector": {"matchLabels": {"may": "not"}}, "policyTypes": ["Egress"]});
    scene.apply(&[policy("shut", shut)])?;
    let traffic = Traffic::start(&scene)?;
    let receivers = [receiver(lab, OUTSIDE_V4.into())?, receiver(lab, OUTSIDE_V6.into())?];
    let heard = Heard::default();
    thread::scope(|scope| {
        let listening = receivers.each_ref().map(|receiver| scope.spawn(|| heard.listen(receiver)));
        let batches = || {
            for batch in 0..PODS / AT_A_TIME {
                let of = format!("batch={batch}");
                scene.apply(&pods(lab, batch))?;
                scene.kubectl(&["wait", "pod", "--selector", &of, "--for=condition=Ready", "--timeout=60s"])?;
                heard.await_all(&lab.pods(scene.name(), &format!("{of},may=yes"))?)?;
                heard.none_of(&lab.pods(scene.name(), &format!("{of},may=not"))?)?;
                // The next ones come while these go.
                scene.kubectl(&["delete", "pods", "--selector", &of, "--wait=false"])?;
            }
            anyhow::Ok(())
        };
        let result = batches();
        heard.done.store(true, Ordering::Relaxed);
        for thread in listening {
            thread.join().map_err(|_| anyhow!("a receiver panicked"))?;
        }
        result
    })?;
    traffic.end()
}

fn pods(lab: &Lab, batch: usize) -> Vec<Value> {
    (0..AT_A_TIME)
        .map(|n| {
            let mut pod = sender(&format!("born-{batch}-{n}"), &format!("n{}", n % lab.nodes().len() + 1), n < FREE);
            pod["metadata"]["labels"]["batch"] = json!(batch.to_string());
            pod
        })
        .collect()
}

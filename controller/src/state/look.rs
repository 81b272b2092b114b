//! Looks at the node's links, and what follows from them. A look goes through the processes of the whole node, so it is
//! made beside the state's task: [`Lookout`] has one at a time, [`State::take_in`] carries out what it has found.

use std::{
    collections::BTreeSet,
    future::pending,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{Datapath, Fault, State, calls::Waiting};
use crate::{
    bind::{Assignment, Link},
    cni::HangUp,
    links::{Links, Lister},
};

/// How often everything is looked at again even if nothing is heard.
pub(super) const RECHECK: Duration = Duration::from_secs(10);
/// How often that is while an interface is held or a pod has none.
const RECHECK_WAITING: Duration = Duration::from_millis(500);
/// How often that is while a pod's first process is about to come, of which nobody tells.
const RECHECK_INHABITED: Duration = Duration::from_millis(10);

/// Looks at the node's links; a trait object's worth of [`Lister`], so that tests can show what they like.
pub trait Looks: Send {
    /// All veths; what is behind one where `wanted` says so.
    fn look(&mut self, wanted: &dyn Fn(u32) -> bool) -> Result<Links, Fault>;
}

impl Looks for Lister {
    fn look(&mut self, wanted: &dyn Fn(u32) -> bool) -> Result<Links, Fault> {
        self.list(wanted).map_err(|error| Fault::new(&error))
    }
}

/// See the module's text.
pub(super) struct Lookout {
    /// Away while a look is going on.
    lister: Option<Box<dyn Looks>>,
    going_on: Option<GoingOn>,
    /// For the next look, if there is to be one.
    wanted: Option<Wanted>,
    /// Veths that were announced since the last look began, and when.
    announced: Vec<(Instant, Link)>,
    /// When that is although nothing happens.
    next: Instant,
}

/// Whom a look is for. What it finds is newer than all that is in here.
#[derive(Debug, Default)]
struct Wanted {
    /// Interfaces that have changed.
    changed: BTreeSet<u32>,
    /// Whose interface is to be known first.
    calls: Vec<Waiting>,
}

struct GoingOn {
    began: Instant,
    /// Interfaces behind which nothing was asked for.
    bound: BTreeSet<u32>,
    wanted: Wanted,
    task: JoinHandle<(Box<dyn Looks>, Found)>,
}

/// What a look has come to.
pub(super) struct Look {
    began: Instant,
    bound: BTreeSet<u32>,
    wanted: Wanted,
    found: Found,
}

/// What one has found, and what it took.
struct Found {
    links: Result<Links, Fault>,
    /// The time on a processor. What it waited for one is no work, and no reason to look less often.
    cost: Duration,
}

impl Found {
    /// Looks; what is behind interfaces that are not `bound`.
    fn by(lister: &mut dyn Looks, bound: &BTreeSet<u32>) -> Self {
        let before = processor_time();
        let links = lister.look(&|index| !bound.contains(&index));
        Self { links, cost: processor_time().saturating_sub(before) }
    }
}

/// What this thread has taken of processors.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

impl Lookout {
    pub(super) fn new(lister: Box<dyn Looks>, now: Instant) -> Self {
        Self { lister: Some(lister), going_on: None, wanted: None, announced: Vec::new(), next: now + RECHECK }
    }

    /// There is to be a look that begins after now.
    pub(super) fn want(&mut self, changed: impl IntoIterator<Item = u32>) {
        self.wanted.get_or_insert_default().changed.extend(changed);
    }

    /// The same, and somebody waits for it.
    pub(super) fn want_for(&mut self, waiting: Waiting) {
        let wanted = self.wanted.get_or_insert_default();
        wanted.changed.insert(waiting.call.ifindex);
        wanted.calls.push(waiting);
    }

    /// Nobody waits for these any more.
    pub(super) fn forget(&mut self, gone: &HangUp) {
        let going_on = self.going_on.as_mut().map(|going_on| &mut going_on.wanted);
        for wanted in self.wanted.as_mut().into_iter().chain(going_on) {
            wanted.calls.retain(|waiting| !gone.ends(&waiting.call));
        }
    }

    /// Adds what was announced after a look had begun to what it found.
    fn complete(&mut self, began: Instant, found: &mut Vec<Link>) {
        self.announced.retain(|(at, _)| *at > began);
        for (_, announced) in &self.announced {
            match found.iter_mut().find(|link| link.index == announced.index) {
                // its other end went elsewhere since
                Some(link) if link.namespace.is_none() => link.clone_from(announced),
                Some(_) => {}
                None => found.push(announced.clone()),
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// When there is one to be wanted.
    pub(super) fn next(&self) -> Option<Instant> {
        self.going_on.is_none().then_some(self.next)
    }

    /// The links alone, at once; nothing else of theirs. `None` while a look is going on.
    pub(super) fn glance(&mut self) -> Option<Result<Links, Fault>> {
        Some(self.lister.as_mut()?.look(&|_| false))
    }

    /// Begins the look that is wanted, unless one is going on.
    fn begin(&mut self, bound: BTreeSet<u32>) {
        let Some(mut lister) = self.lister.take_if(|_| self.wanted.is_some()) else { return };
        let wanted = self.wanted.take().unwrap_or_default();
        let asks = bound.clone();
        let task = spawn_blocking(move || {
            let found = Found::by(&mut *lister, &asks);
            (lister, found)
        });
        self.going_on = Some(GoingOn { began: Instant::now(), bound, wanted, task });
    }

    /// Waits for the look that is going on; for ever, if none is.
    pub(super) async fn done(&mut self) -> anyhow::Result<Look> {
        let Some(going_on) = &mut self.going_on else { return pending().await };
        let (lister, found) = (&mut going_on.task).await.context("the look at the node's interfaces panicked")?;
        self.lister = Some(lister);
        let Some(GoingOn { began, bound, wanted, .. }) = self.going_on.take() else { return pending().await };
        Ok(Look { began, bound, wanted, found })
    }
}

impl<D: Datapath> State<D> {
    /// Begins the look that is wanted, unless one is going on: then it comes after that.
    pub(super) fn begin_look(&mut self) {
        if self.lookout.wanted.is_some() {
            let bound = self.bound_interfaces();
            self.lookout.begin(bound);
        }
    }

    /// Of an interface that is bound, nobody wants to know what is behind it.
    fn bound_interfaces(&self) -> BTreeSet<u32> {
        let interfaces = self.applier.binder.interfaces();
        let bound = interfaces.filter(|(_, assignment)| matches!(assignment, Assignment::Pod(_)));
        bound.map(|(link, _)| link.index).collect()
    }

    /// Looks at the node's links here and now, where nobody has to be answered meanwhile.
    pub(super) fn look(&mut self, changed: &BTreeSet<u32>) {
        self.lookout.want(changed.iter().copied());
        let (began, bound) = (Instant::now(), self.bound_interfaces());
        let Some(lister) = &mut self.lookout.lister else { return };
        let found = Found::by(&mut **lister, &bound);
        let wanted = self.lookout.wanted.take().unwrap_or_default();
        self.take_in(Look { began, bound, wanted, found });
    }

    /// Holds veths that are new before they are looked at, since a look may be going on.
    pub(super) fn hold_newcomers(&mut self, mut veths: Vec<Link>) {
        veths.retain(|veth| self.applier.binder.is_newcomer(veth.index));
        let now = Instant::now();
        for veth in veths {
            self.note_configurations(&[veth.index]);
            self.applier.announce(veth.clone(), now);
            self.lookout.announced.push((now, veth));
        }
    }

    /// Carries out what follows from a look.
    pub(super) fn take_in(&mut self, look: Look) {
        let Look { began, bound, wanted, found: Found { links, cost } } = look;
        let now = Instant::now();
        match links {
            Ok(mut links) => {
                self.lookout.complete(began, &mut links.veths);
                let indexes: Vec<u32> = links.veths.iter().map(|link| link.index).collect();
                self.link_names = links.names.into_iter().collect();
                self.note_inhabitants(&links.veths);
                self.note_configurations(&indexes);
                self.applier.set_links(links.veths, &wanted.changed, now);
                self.drop_stale_calls();
                self.know_inhabitants();
                self.release_strangers();
                // who has lost an interface may have another one, unless another pod has the address now
                if !self.tell_bound() {
                    self.applier.settle(now);
                }
                self.tell_node(links.own);
                let is_bound = |index| matches!(self.applier.binder.assignment(index), Some(Assignment::Pod(_)));
                if indexes.into_iter().any(|index| bound.contains(&index) && !is_bound(index)) {
                    // it was let go of meanwhile, and what is behind it was not asked for
                    self.lookout.want(None);
                }
            }
            Err(fault) => tracing::error!("the node's interfaces can't be listed, and are listed again soon: {fault}"),
        }
        wanted.calls.into_iter().for_each(|waiting| self.take_call(waiting));
        self.lookout.next = Instant::now() + self.patience(began, cost);
    }

    /// Whether plugins may still need what would keep them from it; asked with each interface that comes.
    fn note_configurations(&mut self, indexes: &[u32]) {
        let binder = &self.applier.binder;
        if self.applier.datapath.excludes_ingress_qdisc()
            && indexes.iter().any(|index| binder.assignment(*index).is_none())
        {
            self.configurations.look();
            self.applier.plugins_need_ingress = self.configurations.found().is_some();
        }
    }

    /// How long nothing need be looked at, after a look that began at `began` and took `cost` of a processor.
    fn patience(&self, began: Instant, cost: Duration) -> Duration {
        let binder = &self.applier.binder;
        if binder.awaits_inhabitants(began) {
            // no more than a fifth of a processor, however many processes there are
            RECHECK_INHABITED.max(cost * 4)
        } else if binder.waits(began) {
            RECHECK_WAITING
        } else {
            RECHECK
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Waits for something else than a processor, and works.
    struct Slow {
        waits: Duration,
        works: Duration,
    }

    impl Looks for Slow {
        fn look(&mut self, _: &dyn Fn(u32) -> bool) -> Result<Links, Fault> {
            thread::sleep(self.waits);
            let begun = processor_time();
            while processor_time() - begun < self.works {}
            Ok(Links::default())
        }
    }

    #[test]
    fn what_a_look_waits_for_costs_nothing() {
        let (short, long) = (Duration::from_millis(5), Duration::from_millis(100));
        let cost = |waits, works| Found::by(&mut Slow { waits, works }, &BTreeSet::new()).cost;
        assert!(cost(Duration::ZERO, short) >= short);
        assert!(cost(long, short) < long);
    }
}

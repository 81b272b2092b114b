//! Two pods of this node that claim one address: the one behind a veth has it.

use policy_compiler::{
    Event,
    model::{Labels, Pod},
};

use super::*;
use crate::{links::Links, source::Update};

/// What the kernel shows.
#[derive(Clone, Default)]
pub(super) struct Shown(pub(super) Arc<Mutex<Vec<Link>>>);

impl Looks for Shown {
    fn look(&mut self, _: &dyn Fn(u32) -> bool) -> Result<Links, Fault> {
        Ok(Links { veths: self.0.lock().unwrap().clone(), ..Links::default() })
    }
}

impl State<Fake> {
    pub(super) fn tell(&mut self, event: Event) {
        self.update(vec![Update { events: vec![event], seen: Instant::now(), problems: Arc::new([]) }]);
        self.settle();
    }

    pub(super) fn settle(&mut self) {
        loop {
            if self.lookout.is_wanted() {
                self.look(&BTreeSet::new());
            }
            self.work();
            if self.pace == Pace::Idle && !self.lookout.is_wanted() {
                return;
            }
        }
    }
}

fn claimant(name: &str) -> Event {
    Event::PutPod(Pod {
        name: ObjectName::new("ns", name),
        uid: name.into(),
        labels: Labels::new(),
        addresses: vec!["10.0.0.5".parse().unwrap()],
        ports: Vec::new(),
        node: Some("here".into()),
        host_network: false,
        ended: false,
    })
}

#[test]
fn a_later_claim_takes_no_address_from_a_pod_that_is_bound() {
    let (fake, shown) = (Fake::default(), Shown::default());
    let applier = Applier::new(fake.clone(), Binder::new(Exclusions::default()), Vec::new(), &[], Instant::now());
    *shown.0.lock().unwrap() = vec![link(5, "10.0.0.5")];
    let mut state = state(applier, shown.clone());
    state.tell(claimant("first"));
    assert_eq!(fake.done(), ["pod 5 held", "attach 5", "pod 5 tables 0 0"]);

    state.tell(claimant("second"));
    assert_eq!(fake.done(), [] as [&str; 0], "nothing changes for the pod that is there");
    assert_eq!(state.applier.binder.interface_of("first"), Some(5));
    assert_eq!(
        state.reports.texts().collect::<Vec<_>>(),
        ["ns/first and ns/second both claim 10.0.0.5; ns/first has it"]
    );

    // the second one's veth comes first, then the first one's goes
    *shown.0.lock().unwrap() = vec![link(5, "10.0.0.5"), link(6, "10.0.0.5")];
    state.look(&BTreeSet::new());
    state.settle();
    assert_eq!(fake.done(), ["pod 6 held", "attach 6"]);
    *shown.0.lock().unwrap() = vec![link(6, "10.0.0.5")];
    state.look(&BTreeSet::new());
    state.settle();
    assert_eq!(state.applier.binder.interface_of("second"), Some(6));
    assert_eq!(fake.kernel().pods[&6].v4, Address::from_v4([10, 0, 0, 5]));
    assert_eq!(
        state.reports.texts().collect::<Vec<_>>(),
        ["ns/second and ns/first both claim 10.0.0.5; ns/second has it"]
    );
}

//! The compiler against its promises, on generated clusters with few names, so that objects meet often: any sequence of
//! events ends where a fresh compilation does, the tables mean what the policies say, and between any two writes every
//! packet is judged as before or as after.

mod direct;
mod examples;
mod generate;
mod kernel;
mod sequence;
mod world;

use std::sync::Arc;

use policy_compiler::{Contents, Event, Step};
use proptest::prelude::*;

use sequence::{compiler, run};

fn contents(events: Vec<Event>) -> Contents {
    let mut compiler = compiler();
    compiler.apply_all(events);
    compiler.contents()
}

/// Plans from the contents of one cluster to those of another.
fn plan_to(old: &Contents, new: &Contents) -> Result<Vec<Step>, TestCaseError> {
    let steps = policy_compiler::plan(old, new);
    kernel::Kernel::new(old.clone()).carry_out(&steps, new)?;
    prop_assert_eq!(policy_compiler::plan(new, new), Vec::new());
    Ok(steps)
}

/// The same, and to others from wherever an agent was cut short: to a third cluster, and back.
fn plan_between(clusters: [Vec<Event>; 3], cut: prop::sample::Index) -> Result<(), TestCaseError> {
    let [old, new, third] = clusters.map(contents);
    let steps = plan_to(&old, &new)?;
    let half = kernel::cut_short(&old, &steps, cut.index(kernel::writes(&steps) + 1));
    plan_to(&half, &old)?;
    let steps = plan_to(&half, &third)?;
    let quarter = kernel::cut_short(&half, &steps, cut.index(kernel::writes(&steps) + 1));
    plan_to(&quarter, &new)?;
    Ok(())
}

fn config() -> ProptestConfig {
    ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn events_one_by_one(events in prop::collection::vec(generate::event(), 1..24)) {
        run(events.into_iter().map(|event| vec![event]).collect())?;
    }

    #[test]
    fn events_in_batches(batches in prop::collection::vec(prop::collection::vec(generate::event(), 1..12), 1..5)) {
        run(batches)?;
    }

    #[test]
    fn services_in_batches(
        first in prop::collection::vec(generate::service_event(), 12),
        batches in prop::collection::vec(prop::collection::vec(generate::service_event(), 3..8), 1..4),
    ) {
        run(std::iter::once(first).chain(batches).collect())?;
    }

    #[test]
    fn pods_change_tables_beside_services(
        first in generate::two_tables(),
        batches in prop::collection::vec(prop::collection::vec(generate::move_or_service(), 3..9), 2..6),
    ) {
        run(std::iter::once(first).chain(batches).collect())?;
    }

    #[test]
    fn back_ends_are_relabelled(
        first in generate::behind_a_service(),
        batches in prop::collection::vec(prop::collection::vec(generate::relabelled_or_service(), 1..4), 1..6),
    ) {
        run(std::iter::once(first).chain(batches).collect())?;
    }

    #[test]
    fn a_plan_between_strangers(
        clusters in prop::array::uniform3(prop::collection::vec(generate::event(), 1..24)),
        cut in any::<prop::sample::Index>(),
    ) {
        plan_between(clusters, cut)?;
    }

    #[test]
    fn a_plan_with_services(
        clusters in prop::array::uniform3(prop::collection::vec(generate::service_event(), 12..24)),
        cut in any::<prop::sample::Index>(),
    ) {
        plan_between(clusters, cut)?;
    }
}

#[test]
fn an_empty_cluster_has_empty_tables() {
    assert_eq!(compiler().contents(), Contents::default());
    assert!(
        compiler()
            .apply(Event::DeletePod(policy_compiler::model::ObjectName::new("a", Arc::<str>::from("b"))))
            .is_empty()
    );
}
